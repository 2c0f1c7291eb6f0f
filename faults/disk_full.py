"""The disk of the data folder is full: at the submit, under a log, at the end of a job, in the
ledger, at a restart. Everything else goes on, and all of it works again once there is space.

The disk is a small tmpfs in a mount namespace of this campaign's own.
"""

import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import mounts
from job import words
from lab import Lab, Promise
from service import Answer, Cut, Service

DISK = 24 << 20  # bytes
RESERVE = 2 << 20
REFILL_S = 0.02  # what becomes free meanwhile is taken again
RECOVER_S = 15.0  # from the moment there is space until everything is told


class FullDisk:
    """No space on this disk for as long as it lasts; ``leave`` bytes are left."""

    def __init__(self, folder: Path, leave: int = 0) -> None:
        self._file = folder / "filler"
        self._leave = leave
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep_full, daemon=True)

    def __enter__(self) -> Self:
        self._fill()
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()
        self._thread.join()
        self._file.unlink()

    def _keep_full(self) -> None:
        while not self._over.wait(REFILL_S):
            self._fill()

    def _fill(self) -> None:
        file = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            for size in (1 << 20, 64 << 10, 4096, 1):
                while self._room() >= self._leave + size and os.write(file, bytes(size)):
                    pass
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
        finally:
            os.close(file)

    def _room(self) -> int:
        room = os.statvfs(self._file)
        return room.f_bavail * room.f_frsize if self._leave else 1 << 30


class Disk:
    """The services on the small disk, and a job that must notice nothing."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.folder = lab.root / "disk"
        self.folder.mkdir()
        mounts.tmpfs(self.folder, DISK)
        lab.at_end.callback(mounts.unmount, self.folder)
        self.careful = self._service("careful", RESERVE)
        self.careless = self._service("careless", 0)
        self.promises: list[Promise] = []
        self.answers: dict[str, int] = {}

    def _service(self, name: str, reserve: int) -> Service:
        data = self.folder / name
        variables = {"MODEL_TRAINING_DISK_RESERVE": str(reserve)}
        return self.lab.service("--slots", "4", data=data, **variables).up()

    def full(self, leave: int = 0) -> FullDisk:
        return FullDisk(self.folder, leave)

    def job(self, service: Service, **told: object) -> Promise:
        promise = self.lab.promise(**told)
        self.lab.submit(service, promise)
        self.promises.append(promise)
        self.lab.started(promise["name"])
        return promise

    def expect_refused(self, what: str, answer: Answer, *allowed: int) -> None:
        """A clear answer: a problem that says that it is about space."""
        self.answers[f"{what} {answer.status}"] = self.answers.get(f"{what} {answer.status}", 0) + 1
        said = answer.body.decode()
        is_clear = any(word in said.lower() for word in ("disk", "space"))
        is_problem = answer.headers.get("content-type") == "application/problem+json"
        is_good = answer.status in allowed and is_clear and is_problem
        self.lab.expect(is_good, f"{what}: {answer.status} {said}")

    def finish(self, service: Service) -> None:
        """There is space again: everybody ends truly, and what was full works."""
        for promise in self.promises:
            service.wait_for(promise["name"], "ended", seconds=RECOVER_S)
        fresh = self.job(service, exit_code=2)
        service.wait_for(fresh["name"], "ended")
        self.lab.judge(service, self.promises)
        self.lab.remove_all(service)
        self.promises = []


def campaign(lab: Lab, count: int) -> None:
    """``count`` full disks, by turns at each place."""
    disk = Disk(lab)
    places = [reserve, submit, log, end, stop_and_delete, restart]
    for number in range(count):
        places[number % len(places)](disk)
        lab.rounds += 1
    for service in (disk.careful, disk.careless):
        service.end()
    lab.figures |= {"answers": disk.answers}


def reserve(disk: Disk) -> None:
    """Refused while there is still room for those that run."""
    service = disk.careful
    running = disk.job(service, pieces=50, exit_code=4)  # there is room for what it prints
    submit_while(disk, service, disk.full(leave=RESERVE // 2), 507)
    service.wait_for(running["name"], "ended")
    disk.finish(service)


def submit(disk: Disk) -> None:
    """Not a byte is left, and nobody keeps a reserve."""
    submit_while(disk, disk.careless, disk.full(), 507, 503)
    disk.finish(disk.careless)


def submit_while(disk: Disk, service: Service, full: FullDisk, *allowed: int) -> None:
    lab = disk.lab
    promise = lab.promise()
    path, given = "/training-jobs?pipeline=words", lab.parameters(promise)
    key = {"Idempotency_Key": f"key-{promise['seed']}"}
    with full:
        before = len(service.ask("GET", "/training-jobs").json)
        promise["sent"] = time.monotonic()
        disk.expect_refused("submit", service.ask("POST", path, given, **key), *allowed)
        after = len(service.ask("GET", "/training-jobs").json)
        lab.expect(before == after, f"{before} jobs before a refused submit, {after} after it")
    answer = service.insist("POST", path, given, **key)
    lab.expect(answer.status == 201, f"submit after there is space: {answer}")
    promise["answered"], promise["name"] = time.monotonic(), answer.json["name"]
    disk.promises.append(promise)


def log(disk: Disk) -> None:
    """A job prints into a full disk: it goes on, and its log names what is missing."""
    lab, service = disk.lab, disk.careless
    gate = lab.root / f"gate-{lab.rounds}"
    loud = disk.job(service, pieces=2500, pause=0.0005, exit_code=6, has_gaps=True)
    quiet = disk.job(service, pieces=5, gate=str(gate))  # prints nothing meanwhile
    wait_printed(lab, service, quiet)
    follower = threading.Thread(target=lab.follow, args=(service, loud), daemon=True)
    follower.start()
    with disk.full():
        time.sleep(0.6)  # prints into the full disk: some 1,000 pieces
        lab.expect(service.status(loud["name"])["state"] == "running", "it does not go on")
    gate.touch()
    follower.join(60)
    job = service.wait_for(loud["name"], "ended", seconds=RECOVER_S)
    headers = service.insist("GET", f"/training-jobs/{loud['name']}").headers
    lab.expect("model-training-gaps" in headers, f"no gap is named: {job}")
    disk.finish(service)


def wait_printed(lab: Lab, service: Service, promise: Promise) -> None:
    whole = len(words(promise["seed"], promise["pieces"]))
    lab.until(lambda: printed(service, promise) == whole, "it does not print")


def printed(service: Service, promise: Promise) -> int:
    answer = service.insist("GET", f"/training-jobs/{promise['name']}", Range="bytes=0-0")
    return int(answer.headers.get("content-range", "/0").rpartition("/")[2])


def end(disk: Disk) -> None:
    """Jobs end while nothing can be written: their ends are told, and truly."""
    gate = disk.lab.root / f"gate-{disk.lab.rounds}"
    given = {"gate": str(gate), "has_gaps": True}
    ending = [disk.job(disk.careless, exit_code=code, **given) for code in (0, 9)]
    for promise in ending:
        disk.careless.wait_for(promise["name"], "running")
    with disk.full():
        gate.touch()
        for promise in ending:
            truth = disk.lab.truth / promise["name"]
            disk.lab.until(lambda truth=truth: "exit" in truth.read_text(), "it does not end")
        time.sleep(0.2)
        answer = disk.careless.ask("GET", f"/training-jobs/{ending[0]['name']}/status")
        disk.lab.expect(answer.status in {200, 503}, f"status: {answer}")
    disk.finish(disk.careless)


def stop_and_delete(disk: Disk) -> None:
    """What is asked for meanwhile is done at once, or refused clearly and done when asked again."""
    lab, service = disk.lab, disk.careless
    stopped, deleted = (disk.job(service, pieces=100_000, has_gaps=True) for _ in range(2))
    stopped["stop"] = deleted["delete"] = True
    stop = ("POST", f"/training-jobs/{stopped['name']}/stop")
    delete = ("DELETE", f"/training-jobs/{deleted['name']}")
    with disk.full():
        for what, request in (("stop", stop), ("delete", delete)):
            accept_or_refuse(disk, what, lambda request=request: service.ask(*request))
    for request in (stop, delete):
        lab.expect(service.insist(*request).status in {200, 202, 404}, f"{request}")
    service.wait_gone(deleted["name"], seconds=RECOVER_S)
    disk.promises.remove(deleted)
    lab.checks += 1
    disk.finish(service)


def accept_or_refuse(disk: Disk, what: str, ask: Callable[[], Answer]) -> None:
    answer = ask()
    if answer.status in {200, 202}:
        said = f"{what} {answer.status}"
        disk.answers[said] = disk.answers.get(said, 0) + 1
    else:
        disk.expect_refused(what, answer, 503, 507)


def restart(disk: Disk) -> None:
    """The server is killed and started while the disk is full: it serves, or says why not."""
    lab, service = disk.lab, disk.careless
    gate = lab.root / f"gate-{lab.rounds}"
    disk.job(service, exit_code=8, gate=str(gate), has_gaps=True)
    with disk.full():
        service.end()
        came_up = service.start()
        said = "started" if came_up else "start refused"
        disk.answers[said] = disk.answers.get(said, 0) + 1
        if came_up:
            is_alive_with_less(lab, service)
        else:
            service.bury()
            last = service.last_words()
            lab.expect("disk" in last.lower(), f"it did not start, and not for space: {last}")
            lab.expect("Traceback" not in last, f"a stack: {last}")
    if not came_up:
        service.up()
    gate.touch()
    disk.finish(service)


def is_alive_with_less(lab: Lab, service: Service) -> None:
    try:
        answer = service.ask("GET", "/training-jobs")
    except Cut as cut:
        lab.violation(f"it came up and cannot be asked: {cut}")
        return
    lab.expect(answer.status in {200, 503}, f"the list: {answer}")
