"""The host is restarted under running and waiting jobs.

The machine's own is not: in a mount namespace another file lies over the kernel's boot id, and
everything of the service is killed at one moment, as a power cut does it.
"""

import uuid
from pathlib import Path

import mounts
import proctable
from lab import Lab, Promise
from service import Service

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
RUNNING = 4
WAITING = 1  # a job that waits has lost nothing: it runs after the restart
ENDED = 1  # and one that had ended stays as it is


def campaign(lab: Lab, count: int) -> None:
    """``count`` jobs that were there at a restart, some running, some waiting, some ended."""
    service = lab.service("--slots", str(RUNNING))
    boot(lab, first=True)
    service.up()
    while lab.rounds < count:
        one_restart(lab, service)


def one_restart(lab: Lab, service: Service) -> None:
    ended = [lab.promise(exit_code=7) for _ in range(ENDED)]
    for promise in ended:
        lab.submit(service, promise)
        service.wait_for(promise["name"], "ended")
    running = [lab.promise(pieces=100_000, reason="HostRestarted") for _ in range(RUNNING)]
    waiting = [lab.promise() for _ in range(WAITING)]
    for promise in [*running, *waiting]:
        lab.submit(service, promise)
    for promise in running:
        service.wait_for(promise["name"], "running")
        lab.started(promise["name"])
    service.end()
    left = proctable.end_all(str(lab.root))
    lab.expect(not left, f"{left} outlived the power cut")
    boot(lab)
    service.up()
    judge(lab, service, [*ended, *running, *waiting])


def judge(lab: Lab, service: Service, promises: list[Promise]) -> None:
    for promise in promises:
        service.wait_for(promise["name"], "ended")
    lab.judge(service, promises)
    lab.remove_all(service)
    lab.rounds += len(promises)


def boot(lab: Lab, *, first: bool = False) -> None:
    """Let the machine say that it was started anew."""
    if not first:
        mounts.unmount(BOOT_ID)
    file = lab.root / "boot_id"
    before = BOOT_ID.read_text()
    file.write_text(f"{uuid.uuid4()}\n")
    mounts.bind(file, BOOT_ID)
    lab.expect(BOOT_ID.read_text() != before, "the boot id is the old one")
