"""The server is killed, at named points of its code and at random moments, and comes back.

Meanwhile callers submit, follow, stop and delete, and go on after each death as a careful client
does: a POST with a key is repeated, one without is not, a follower resumes, a stop and a delete
are asked for again. In a share of the deaths the ledger is removed too.
"""

import signal
import subprocess
import threading
import time
from collections import Counter

from lab import Lab, Promise
from service import ROOT, Cut, Service

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


class Callers:
    """Everybody who uses the service during one block."""

    def __init__(self, lab: Lab, service: Service) -> None:
        self.lab = lab
        self.service = service
        self.promises: list[Promise] = []
        self.ledgers_removed = 0
        self.resumes = 0
        self._threads: list[threading.Thread] = []

    def send_in(self) -> None:
        """One of each kind of caller, each with another job."""
        chance = self.lab.random
        kinds = [self.run, self.run_with_key, self.quick, self.stop, self.delete, self.stop_waiting]
        for kind in kinds:
            promise = self.lab.promise(
                exit_code=chance.choice([0, 0, 1, 3, 77, 255]),
                pieces=chance.randint(5, 40),
                pause=chance.choice([0.005, 0.01, 0.02]),
                on_term=chance.choice(["die", "0", "9"]),
            )
            self.promises.append(promise)
            thread = threading.Thread(target=self._guarded, args=(kind, promise), daemon=True)
            self._threads.append(thread)
            thread.start()

    def finish(self) -> None:
        for thread in self._threads:
            thread.join(timeout=120)
            self.lab.expect(not thread.is_alive(), "a caller is stuck")

    def _guarded(self, kind, promise: Promise) -> None:
        try:
            kind(promise)
        except Exception as error:  # noqa: BLE001 - a finding, not the campaign's end
            self.lab.violation(f"{kind.__name__} of {promise}: {error!r}")

    # What callers do

    def run(self, promise: Promise) -> None:
        if self._submit(promise):
            self._follow(promise)

    def run_with_key(self, promise: Promise) -> None:
        if self._submit(promise, key=f"key-{promise['seed']}"):
            self._follow(promise)

    def quick(self, promise: Promise) -> None:
        promise.update(pieces=1, pause=0.0)
        if self._submit(promise, key=f"key-{promise['seed']}"):
            self.service.wait_for(promise["name"], "ended")

    def stop(self, promise: Promise) -> None:
        promise.update(pieces=3000)
        if self._submit(promise, key=f"key-{promise['seed']}"):
            self.service.wait_for(promise["name"], "running", "ended")
            self._stop(promise)
            self._follow(promise)

    def stop_waiting(self, promise: Promise) -> None:
        """Stopped as early as can be: it may wait, be about to start, or run."""
        promise.update(pieces=3000)
        if self._submit(promise):
            self._stop(promise)

    def delete(self, promise: Promise) -> None:
        promise.update(pieces=3000)
        if not self._submit(promise, key=f"key-{promise['seed']}"):
            return
        promise["delete"] = True
        follower = threading.Thread(target=self._follow, args=(promise,), daemon=True)
        follower.start()
        # A ledger that is lost forgets that a delete was asked for; then the job is back.
        while self.service.insist("DELETE", f"/training-jobs/{promise['name']}").status != 404:
            lost = self.ledgers_removed
            while self.service.status(promise["name"]) and lost == self.ledgers_removed:
                time.sleep(0.02)
        follower.join()

    def _submit(self, promise: Promise, key: str | None = None) -> bool:
        """Whether a job was promised; without a key nobody can ask twice."""
        path = "/training-jobs?pipeline=words&grace=5"
        given = self.lab.parameters(promise)
        promise["sent"] = time.monotonic()
        if key is None:
            self.service.is_up.wait(30)
            try:
                answer = self.service.ask("POST", path, given)
            except Cut:
                return False
        else:
            answer = self.service.insist("POST", path, given, Idempotency_Key=key)
        if not self.lab.expect(answer.status in {200, 201}, f"POST: {answer}"):
            return False
        promise["answered"] = time.monotonic()
        promise["name"] = answer.json["name"]
        return True

    def _stop(self, promise: Promise) -> None:
        promise["stop"] = True
        answer = self.service.insist("POST", f"/training-jobs/{promise['name']}/stop")
        self.lab.expect(answer.status in {200, 202}, f"stop: {answer}")
        self.service.wait_for(promise["name"], "ended")

    def _follow(self, promise: Promise) -> None:
        self.resumes += self.lab.follow(self.service, promise).resumes


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
        self._settle(callers)
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

    def _settle(self, callers: Callers) -> None:
        """Every job has ended, also those that nobody was promised and nobody waits for."""
        by_seed = {promise["seed"]: promise for promise in callers.promises}
        for job in self.service.insist("GET", "/training-jobs?state=active").json:
            promise = by_seed.get(job["parameters"].get("seed"))
            if promise and promise["pieces"] > 100:
                promise["stop"] = True
                self.service.insist("POST", f"/training-jobs/{job['name']}/stop")
            self.service.wait_for(job["name"], "ended")


def campaign(lab: Lab, count: int) -> None:
    """``count`` deaths; more where there are more named points."""
    began = time.monotonic()
    rounds = Rounds(lab, count)
    rounds.run()
    lab.figures["seconds a round"] = round((time.monotonic() - began) / lab.rounds, 2)
