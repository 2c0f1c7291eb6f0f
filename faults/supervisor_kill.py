"""Supervisors are killed, with the server up and with the server down.

Each job has, beside its command, a process that took every way out of the tree: two forks and a
session of its own, SIGTERM ignored; where jobs have cgroups of their own, one also gave up its
environment. The job must be failed, ``SupervisorLost``, and by the time that it is said to be,
nothing of it may be alive. Tried with cgroups, where the machine has them, and without.
"""

import time

import mounts
import proctable
from lab import Lab
from service import Service

BATCH = 5  # jobs at a time
BOUND_S = 8.0  # from the kill, or the server's start, until it is known; the lock is tried for 5 s


def campaign(lab: Lab, count: int) -> None:
    """``count`` supervisors, by turns with the server up and down, half without cgroups."""
    service = lab.service("--slots", str(BATCH + 1)).up()
    half(lab, service, count // 2, "as the machine is")
    service.end()
    mounts.hide_cgroups()
    half(lab, service.up(), count, "without cgroups")
    lab.remove_all(service)


def half(lab: Lab, service: Service, count: int, what: str) -> None:
    slowest, is_down = 0.0, False
    while lab.rounds < count:
        slowest = max(slowest, one_batch(lab, service, down=is_down))
        is_down = not is_down
    lab.figures[f"slowest {what}, seconds"] = round(slowest, 2)


def one_batch(lab: Lab, service: Service, *, down: bool) -> float:
    """Seconds until all was known and cleared."""
    names = [start(lab, service, "marked_session") for _ in range(BATCH)]
    if proctable.in_own_cgroup(names[0]):
        names.append(start(lab, service, "own_session"))
    if down:
        service.end()
    for name in names:
        kill_supervisor(lab, name)
    began = time.monotonic()
    if down:
        service.up()
    for name in names:
        end(lab, service, name)
    lab.rounds += len(names)
    return time.monotonic() - began


def start(lab: Lab, service: Service, kind: str) -> str:
    name = service.create("tree", {"kind": kind})
    lab.until(lambda: is_whole(service, name), f"{name} has no tree")
    lab.expect(len(proctable.alive(name)) == 3, f"{kind} has not its three processes")
    return name


def is_whole(service: Service, name: str) -> bool:
    return service.insist("GET", f"/training-jobs/{name}").body == b"ready\n"


def kill_supervisor(lab: Lab, name: str) -> None:
    folder = f"/{name}\0"  # the last of its arguments; the job's own processes have it not
    found = proctable.by_argument(str(lab.root), folder)
    if lab.expect(len(found) == 1, f"{name} has supervisors {found}"):
        proctable.kill(found[0], (folder,))


def end(lab: Lab, service: Service, name: str) -> None:
    job = service.wait_for(name, "ended", seconds=BOUND_S)
    left = proctable.alive(name)
    lab.expect(not left, f"{name} is {job['state']} and {left} are alive")
    seen = (job["state"], job["reason"], job["exit_code"])
    lab.expect(seen == ("failed", "SupervisorLost", None), f"{name}: {job}")
    log = service.insist("GET", f"/training-jobs/{name}").body
    lab.expect(log == b"ready\n", f"{name}: log is {log!r}")
    lab.expect(job["finished_at"] is not None, f"{name}: no time of its end")
