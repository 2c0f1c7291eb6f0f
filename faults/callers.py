"""Who uses the service while it breaks, as a careful client does.

A POST with a key is repeated, one without is not, a follower resumes, a stop and a delete are
asked for again.
"""

import threading
import time

from lab import Lab, Promise
from service import Cut, Service

ENDLESS = 3000  # pieces: whoever prints so many is stopped before


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
                kind=kind.__name__,
                exit_code=chance.choice([0, 0, 1, 3, 77, 255]),
                pieces=chance.randint(5, self.lab.pieces),
                pause=chance.choice(self.lab.pauses),
                linger=chance.choice(self.lab.lingers),
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

    def settle(self) -> None:
        """Until every job has ended, also those that nobody was promised and nobody waits for."""
        by_seed = {promise["seed"]: promise for promise in self.promises}
        for job in self.service.insist("GET", "/training-jobs?state=active").json:
            promise = by_seed.get(job["parameters"].get("seed"))
            if promise and promise["pieces"] == ENDLESS:
                asks("stop", promise)
                self.service.insist("POST", f"/training-jobs/{job['name']}/stop")
            self.service.wait_for(job["name"], "ended")

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
        promise.update(pieces=ENDLESS)
        if self._submit(promise, key=f"key-{promise['seed']}"):
            self.service.wait_for(promise["name"], "running", "ended")
            time.sleep(promise["linger"])
            self._stop(promise)
            self._follow(promise)

    def stop_waiting(self, promise: Promise) -> None:
        """Stopped as early as can be: it may wait, be about to start, or run."""
        promise.update(pieces=ENDLESS)
        if self._submit(promise):
            self._stop(promise)

    def delete(self, promise: Promise) -> None:
        promise.update(pieces=ENDLESS)
        if not self._submit(promise, key=f"key-{promise['seed']}"):
            return
        follower = threading.Thread(target=self._follow, args=(promise,), daemon=True)
        follower.start()
        time.sleep(promise["linger"])
        asks("delete", promise)
        # A ledger that is lost forgets that a delete was asked for; then the job is back.
        while self.service.insist("DELETE", f"/training-jobs/{promise['name']}").status != 404:
            lost = self.ledgers_removed
            while self.service.status(promise["name"]) and lost == self.ledgers_removed:
                time.sleep(0.02)
        self.lab.look_gone(promise["name"])
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
            if answer.status == 503 and self.lab.may_refuse:
                return False
        else:
            answer = self.service.insist("POST", path, given, Idempotency_Key=key)
        if not self.lab.expect(answer.status in {200, 201}, f"POST: {answer}"):
            return False
        promise["answered"] = time.monotonic()
        promise["name"] = answer.json["name"]
        return True

    def _stop(self, promise: Promise) -> None:
        asks("stop", promise)
        answer = self.service.insist("POST", f"/training-jobs/{promise['name']}/stop")
        self.lab.expect(answer.status in {200, 202}, f"stop: {answer}")
        self.service.wait_for(promise["name"], "ended")

    def _follow(self, promise: Promise) -> None:
        self.resumes += self.lab.follow(self.service, promise).resumes


def asks(what: str, promise: Promise) -> None:
    """Note that it is about to be asked for, and since when: the first time counts."""
    if promise["asked_at"] is None:
        promise["asked_at"] = time.monotonic()
    promise[what] = True
