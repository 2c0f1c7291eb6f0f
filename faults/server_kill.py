"""The server is killed, at named points of its code and at random moments, and comes back.

Meanwhile callers submit, follow, stop and delete. In a share of the deaths the ledger is removed
too.
"""

import signal
import subprocess
import time
from collections import Counter

from callers import Callers
from lab import Lab
from service import ROOT

BLOCK = 10  # rounds until everybody has finished and the witness judges
POINT_S = 4.0  # seconds for a named point to be reached
RANDOM_S = 0.7  # the longest time until a kill at random
LEDGER_SHARE = 0.2  # of the deaths after which the ledger is gone
SLOTS = "6"


def named_points() -> list[str]:
    """The names in the product's own table, asked of it by a process of its own.

    Those of a cluster are left out: no job of this campaign runs on one.
    """
    code = (
        "from model_training.crash_points import POINTS\n"
        "print(*(point for point, where in POINTS.items() if not where.startswith('kubernetes')))"
    )
    listed = subprocess.run(
        [str(ROOT / ".venv/bin/python"), "-c", code], stdout=subprocess.PIPE, check=True
    )
    return listed.stdout.decode().split()


class Rounds:
    """The deaths of one service."""

    def __init__(self, lab: Lab, count: int) -> None:
        self.lab = lab
        self.points = named_points()
        self.hits = Counter[str]()
        self.service = lab.service("--slots", SLOTS)
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
            self.block([self.plan.pop() for _ in range(min(BLOCK, len(self.plan)))])
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
        callers.finish()
        callers.settle()
        self.lab.judge(self.service, callers.promises)
        self.lab.remove_all(self.service)
        self.service.end()
        self.ledgers_removed += callers.ledgers_removed
        self.resumes += callers.resumes

    def one_death(self, callers: Callers, point: str | None) -> None:
        armed = {}
        if point:
            armed["MODEL_TRAINING_CRASH_AT"] = f"{point}:{self.lab.random.randint(1, 3)}"
        came_up = self.service.start(**armed)
        callers.send_in()
        deadline = time.monotonic() + (POINT_S if point else self.lab.random.uniform(0, RANDOM_S))
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
        if self.lab.random.random() < LEDGER_SHARE:
            self.lab.remove_ledger(self.service)
            callers.ledgers_removed += 1


def campaign(lab: Lab, count: int) -> None:
    """``count`` deaths; more where there are more named points."""
    began = time.monotonic()
    rounds = Rounds(lab, count)
    rounds.run()
    lab.figures["seconds a round"] = round((time.monotonic() - began) / lab.rounds, 2)
