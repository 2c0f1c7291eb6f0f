"""The server is killed, at named points of its code and at random moments, and comes back.

Meanwhile callers submit, follow, stop and delete. In a share of the deaths the ledger is removed
too. On one machine, and on the cluster.
"""

import json
import signal
import subprocess
import time
from collections import Counter
from typing import NamedTuple

from callers import Callers
from lab import Lab
from service import ROOT

SLOTS = "6"


class Pace(NamedTuple):
    """What may be expected of an executor, and when."""

    block: int  # rounds until everybody has finished and the witness judges
    point_s: float  # seconds for a named point to be reached
    times: int  # at most so often until the server dies there
    random_s: float  # the longest time until a kill at random
    ledger_share: float  # of the deaths after which the ledger is gone
    options: tuple[str, ...]


PACES = {
    "local": Pace(10, 4.0, 3, 0.7, 0.2, ("--slots", SLOTS)),
    # A stopped job is forgotten by the cluster at once: a lost ledger would take it along.
    "kubernetes": Pace(6, 12.0, 1, 4.0, 0.0, ()),
}


def named_points(executor: str) -> list[str]:
    """The names in the product's own table, asked of it by a process of its own.

    Those of other executors are left out: no job of this campaign runs there.
    """
    code = "from model_training.crash_points import POINTS; import json; print(json.dumps(POINTS))"
    listed = subprocess.run(
        [str(ROOT / ".venv/bin/python"), "-c", code], stdout=subprocess.PIPE, check=True
    )
    others = PACES.keys() - {executor}
    table: dict[str, str] = json.loads(listed.stdout)
    return [point for point, where in table.items() if where.partition(":")[0] not in others]


class Rounds:
    """The deaths of one service."""

    def __init__(self, lab: Lab, count: int) -> None:
        self.lab = lab
        self.pace = PACES[lab.executor]
        self.points = named_points(lab.executor)
        self.hits = Counter[str]()
        self.service = lab.service(*self.pace.options)
        self.plan: list[str | None] = [*self.points]
        self.plan += [
            None if lab.random.random() < 0.5 else lab.random.choice(self.points)
            for _ in range(count - len(self.plan))
        ]
        lab.random.shuffle(self.plan)
        self.again: list[str] = []
        self.ledgers_removed = 0
        self.resumes = 0

    def run(self) -> None:
        while self.plan:
            self.block([self.plan.pop() for _ in range(min(self.pace.block, len(self.plan)))])
            if not self.plan and self.again:
                self.plan, self.again = list(self.again), []
        self.lab.figures |= {
            "hits": {point: self.hits[point] for point in [*self.points, "at random"]},
            "ledgers removed": self.ledgers_removed,
            "followers resumed": self.resumes,
        }
        for point in self.points:
            self.lab.expect(self.hits[point] > 0, f"the point {point} was never reached")

    def block(self, plan: list[str | None]) -> None:
        callers = Callers(self.lab, self.service)
        for point in plan:
            self.one_death(callers, point)
        self.service.up()
        self.lab.judge_step(self.service, callers.promises, time.monotonic())
        callers.finish()
        callers.settle()
        self.lab.finish(self.service, callers.promises)
        self.service.end()
        self.ledgers_removed += callers.ledgers_removed
        self.resumes += callers.resumes

    def one_death(self, callers: Callers, point: str | None) -> None:
        armed = {}
        if point:
            armed["MODEL_TRAINING_CRASH_AT"] = (
                f"{point}:{self.lab.random.randint(1, self.pace.times)}"
            )
        came_up = self.service.start(**armed)
        callers.send_in()
        deadline = time.monotonic() + (
            self.pace.point_s if point else self.lab.random.uniform(0, self.pace.random_s)
        )
        while self.service.is_alive and time.monotonic() < deadline:
            time.sleep(0.005)
        by_itself = not self.service.is_alive
        if by_itself:
            code = self.service.bury()
            self.lab.expect(code == -signal.SIGKILL, f"the server left with {code} at {point}")
        else:
            self.service.end()
        self.lab.expect(came_up or by_itself, "the server did not come up")
        self.hits[point if point and by_itself else "at random"] += 1
        if point and not by_itself and not self.hits[point]:
            self.again.append(point)
        self.lab.rounds += 1
        if self.lab.random.random() < self.pace.ledger_share:
            self.lab.remove_ledger(self.service)
            callers.ledgers_removed += 1


def campaign(lab: Lab, count: int) -> None:
    """``count`` deaths; more where there are more named points."""
    began = time.monotonic()
    rounds = Rounds(lab, count)
    rounds.run()
    lab.figures["seconds a round"] = round((time.monotonic() - began) / lab.rounds, 2)
