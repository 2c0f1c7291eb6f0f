"""Stop and delete against processes that do not want to go.

Where a job has a cgroup of its own that ends it; where it has none, as on most people's machines,
the supervisor must find them all. Both are tried, the second with ``/sys/fs/cgroup`` hidden.
"""

import threading
import time

import mounts
import proctable
from lab import Lab
from service import Service

GRACE_S = 1
SPARE_S = 2.0  # after the grace, until nothing of the tree is left
LOOK_S = 0.05  # between looks at the process table
QUIET = ("double_fork", "own_session", "nohup", "deaf")
STORM = "storm"  # alone, as it takes a whole machine


def campaign(lab: Lab, count: int) -> None:
    """``count`` trees, by turns of each kind, stopped and deleted; half of them without cgroups."""
    service = lab.service("--slots", str(2 * len(QUIET))).up()
    half(lab, service, count // 2, "as the machine is")
    service.end()
    mounts.hide_cgroups()
    half(lab, service.up(), count, "without cgroups")
    lab.remove_all(service)
    lab.figures["grace"] = GRACE_S


def half(lab: Lab, service: Service, count: int, what: str) -> None:
    slowest: dict[str, float] = {}
    while lab.rounds < count:
        batch(lab, service, [(kind, ask) for kind in QUIET for ask in (stop, delete)], slowest)
        for ask in (stop, delete):
            batch(lab, service, [(STORM, ask)], slowest)
    lab.figures[f"slowest {what}, seconds after the answer"] = slowest


def batch(lab: Lab, service: Service, asked: list, slowest: dict[str, float]) -> None:
    def one(kind: str, ask) -> None:
        try:
            took = one_tree(lab, service, kind, ask)
            slowest[kind] = max(slowest.get(kind, 0.0), round(took, 2))
        except Exception as error:  # noqa: BLE001 - a finding, not the campaign's end
            lab.violation(f"{ask.__name__} of {kind}: {error!r}")

    threads = [threading.Thread(target=one, args=each) for each in asked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lab.rounds += len(threads)


def one_tree(lab: Lab, service: Service, kind: str, ask) -> float:
    name = service.create("tree", {"kind": kind}, f"&grace={GRACE_S}")

    least = 100 if kind == STORM else 3

    def is_whole() -> bool:
        # A process shows neither arguments nor environment while it is in the midst of an exec.
        is_ready = service.insist("GET", f"/training-jobs/{name}").body == b"ready\n"
        return is_ready and len(proctable.alive(name)) >= least

    lab.until(is_whole, f"{kind} does not grow to {least} processes: its end would show nothing")
    answer = service.insist(*ask(name))
    began = time.monotonic()
    lab.expect(answer.status == 202, f"{ask.__name__} of {kind}: {answer}")
    deadline = began + GRACE_S + SPARE_S
    while left := proctable.alive(name):
        if time.monotonic() > deadline:
            lab.violation(f"{ask.__name__} of {kind}: {len(left)} alive after grace + {SPARE_S} s")
            break
        time.sleep(LOOK_S)
    took = time.monotonic() - began
    judge(lab, service, name, ask)
    return took


def judge(lab: Lab, service: Service, name: str, ask) -> None:
    if ask is delete:
        service.wait_gone(name, seconds=10)
        return
    job = service.wait_for(name, "ended", seconds=10)
    seen = (job["state"], job["exit_code"] in {143, 137})
    lab.expect(seen == ("stopped", True), f"{job['state']}, exit code {job['exit_code']}")


def stop(name: str) -> tuple[str, str]:
    return "POST", f"/training-jobs/{name}/stop"


def delete(name: str) -> tuple[str, str]:
    return "DELETE", f"/training-jobs/{name}"
