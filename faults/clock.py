"""The clock is set back an hour while jobs run: order and durations stay right.

Never the machine's own clock: in a mount namespace ``/etc/ld.so.preload`` names Debian's
libfaketime, so that the server, its supervisors (whose environment is made from scratch) and the
jobs all get their time from one file, which says how far off they are.
"""

import re
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import mounts
from lab import Lab, Promise
from service import Service

LIBRARIES = (
    "/usr/lib/*/faketime/libfaketime.so.1",
    "/usr/lib/faketime/libfaketime.so.1",
)
HOUR = timedelta(hours=1)
BATCH = 5  # jobs at a time that run while the clock is set back, each half of a batch before it
SPARE_S = 1.5  # that a duration may be longer than the job's own work: starting and ending it


class Clock:
    """What time the service, its supervisors and its jobs believe it is."""

    def __init__(self, lab: Lab) -> None:
        self._file = lab.root / "faketimerc"
        self._ahead = timedelta()
        self.variables = {
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",  # look into the file each time: slow, but certain
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # as when a machine's clock is set
            "NO_FAKE_STAT": "1",
        }
        self._write()
        self._preload(lab)

    def _preload(self, lab: Lab) -> None:
        found = [path for pattern in LIBRARIES for path in Path("/").glob(pattern[1:])]
        if not found:
            raise mounts.CannotMount("faketime is not installed: apt-get install faketime")
        copy = lab.root / "etc"
        # What may not be read (shadow) is not needed.
        subprocess.run(["cp", "-a", "/etc", str(copy)], stderr=subprocess.DEVNULL, check=False)
        (copy / "ld.so.preload").write_text(f"{found[0]}\n")
        mounts.bind(copy, Path("/etc"))

    def set_back(self) -> None:
        self._ahead -= HOUR
        self._write()

    def now(self) -> datetime:
        return datetime.now(UTC) + self._ahead

    def _write(self) -> None:
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{self._ahead.total_seconds():+.0f}\n")
        fresh.replace(self._file)


def campaign(lab: Lab, count: int) -> None:
    """``count`` jobs over whose lives the clock is set back, with and without a restart."""
    clock = Clock(lab)
    allow(lab, clock)
    service = lab.service("--slots", str(BATCH), **clock.variables).up()
    is_faked(lab, service, clock)
    while lab.rounds < count:
        one_hour_back(lab, service, clock, restart=lab.rounds % (2 * BATCH) >= BATCH)
    lab.remove_all(service)


def allow(lab: Lab, clock: Clock) -> None:
    """The pipeline takes the variables over, so supervisors and jobs get them."""
    file = lab.pipelines / "words" / "pipeline.toml"
    names = ", ".join(f'"{name}"' for name in clock.variables)
    file.write_text(f"{file.read_text()}pass_env = [{names}]\n")


def is_faked(lab: Lab, service: Service, clock: Clock) -> None:
    """The means work: a job's times are those of the clock that we set."""
    clock.set_back()
    promise = lab.promise(pieces=1)
    lab.submit(service, promise)
    job = service.wait_for(promise["name"], "ended")
    for what in ("created_at", "started_at", "finished_at"):
        off = abs(parse(job[what]) - clock.now())
        lab.expect(off < timedelta(seconds=30), f"{what} is not of the clock that was set: {job}")
    first = service.insist("GET", f"/training-jobs/{promise['name']}?timestamps=true").body
    stamp = re.match(rb"(\S+Z) ", first)
    good = stamp and abs(parse(stamp[1].decode()) - clock.now()) < timedelta(seconds=30)
    lab.expect(bool(good), f"the log's times are not of the clock that was set: {first[:80]!r}")
    lab.judge(service, [promise])
    lab.remove_all(service)


def one_hour_back(lab: Lab, service: Service, clock: Clock, *, restart: bool) -> None:
    gate = lab.root / f"gate-{lab.rounds}"
    before = [lab.promise(exit_code=3, gate=str(gate)) for _ in range(BATCH // 2)]
    after = [lab.promise(exit_code=number) for number in range(BATCH - len(before))]
    for promise in before:
        lab.submit(service, promise)
        lab.started(promise["name"])
        service.wait_for(promise["name"], "running")
    began = time.monotonic()
    clock.set_back()
    if restart:
        service.end()
        service.up()
    for promise in after:
        lab.submit(service, promise)
    gate.touch()
    for promise in [*before, *after]:
        job = service.wait_for(promise["name"], "ended")
        least = promise["pieces"] * promise["pause"]
        most = time.monotonic() - promise["sent"]
        right = 0 < least <= job["duration_s"] <= most + SPARE_S
        lab.expect(right, f"{job['duration_s']} s, not {least} to {most:.2f}: {job}")
        lab.expect(job["started_at"] <= job["finished_at"], f"it ended before it began: {job}")
    lab.figures["longest that a clock was wrong, seconds"] = round(time.monotonic() - began, 1)
    in_order(lab, service, [*before, *after])
    lab.judge(service, [*before, *after])
    lab.remove_all(service)
    lab.rounds += BATCH


def in_order(lab: Lab, service: Service, promises: list[Promise]) -> None:
    """Newest first, however early the clock says that it was, on pages too."""
    wanted = [promise["name"] for promise in reversed(promises)]
    listed = [job["name"] for job in service.insist("GET", "/training-jobs").json]
    lab.expect(listed == wanted, f"listed {listed}, asked for {wanted}")
    paged: list[str] = []
    path: str | None = "/training-jobs?limit=2"
    while path:
        answer = service.insist("GET", path)
        paged += [job["name"] for job in answer.json]
        link = re.search(r"<(?:https?://[^/]+)?([^>]+)>", answer.headers.get("link", ""))
        path = link[1] if link else None
    lab.expect(paged == wanted, f"pages {paged}, asked for {wanted}")


def parse(moment: str) -> datetime:
    return datetime.fromisoformat(moment)
