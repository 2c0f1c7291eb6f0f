"""The image registry is stopped while jobs run, and comes back.

A pipeline whose image was never asked for is refused with 503 and makes nothing; jobs that run go
on, and so do those whose image the node has; as soon as the registry is back, it is accepted.
"""

import time

from callers import Callers
from cluster_lab import ClusterLab
from outages import OUTAGE_S, some_run
from service import Service

BLOCK = 5  # rounds until everybody has finished and the witness judges
ACCEPTED_S = 10.0  # after the recovery
REFUSED_S = 6.0  # the longest that a person waits for the 503


def campaign(lab: ClusterLab, count: int) -> None:
    """``count`` times."""
    service = lab.service().up()
    lab.figures["slowest to be refused, seconds"] = 0.0
    lab.figures["slowest to be accepted again, seconds"] = 0.0
    while lab.rounds < count:
        callers = Callers(lab, service)
        for _ in range(min(BLOCK, count - lab.rounds)):
            one(lab, callers)
        callers.finish()
        callers.settle()
        lab.finish(service, callers.promises)


def one(lab: ClusterLab, callers: Callers) -> None:
    """One round."""
    service, unseen = callers.service, f"words-{lab.rounds}"
    lab.publish(unseen)
    some_run(lab, callers)
    lab.registry.stop()
    try:
        callers.send_in()
        refused(lab, service, unseen)
        time.sleep(lab.random.uniform(*OUTAGE_S))
        refused(lab, service, unseen)
    finally:
        lab.registry.start()
    recovered = time.monotonic()
    accepted(lab, callers, unseen)
    note(lab, "slowest to be accepted again, seconds", time.monotonic() - recovered)
    lab.judge_step(service, callers.promises, recovered)
    lab.rounds += 1


def refused(lab: ClusterLab, service: Service, pipeline: str) -> None:
    """Of what is refused nobody makes a note: a job of it would be one that nobody asked for."""
    began = time.monotonic()
    path = f"/training-jobs?pipeline={pipeline}"
    answer = service.ask("POST", path, lab.parameters(lab.promise(kind="refused")))
    took = time.monotonic() - began
    good = answer.status == 503 and "retry-after" in {key.lower() for key in answer.headers}
    lab.expect(good, f"the registry is away: {answer}")
    lab.expect(took < REFUSED_S, f"refused after {took:.1f} s")
    note(lab, "slowest to be refused, seconds", took)


def accepted(lab: ClusterLab, callers: Callers, pipeline: str) -> None:
    promise = lab.promise(kind="run", pieces=5, exit_code=3)
    promise["sent"] = time.monotonic()
    path = f"/training-jobs?pipeline={pipeline}"
    answer = callers.service.insist("POST", path, lab.parameters(promise))
    promise["answered"] = time.monotonic()
    took = promise["answered"] - promise["sent"]
    lab.expect(answer.status == 201 and took < ACCEPTED_S, f"after {took:.1f} s: {answer}")
    promise["name"] = answer.json["name"]
    callers.promises.append(promise)


def note(lab: ClusterLab, what: str, seconds: float) -> None:
    lab.figures[what] = max(lab.figures[what], round(seconds, 2))
