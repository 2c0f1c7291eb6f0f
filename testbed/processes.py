"""Start programs so that they outlive us, find them again, and never take a stranger for one.

A program is known by a record: pid, start time, boot and argv. A pid that was given to somebody
else since has another start time; a record from before a reboot has another boot.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LAUNCHER = Path(__file__).with_name("launcher.py")


@dataclass(frozen=True)
class Record:
    """Who was started."""

    pid: int
    started: int
    boot: str
    argv: tuple[str, ...]

    @classmethod
    def read(cls, file: Path) -> "Record | None":
        """The record in a file, or None where there is none."""
        try:
            fields = json.loads(file.read_text())
        except FileNotFoundError:
            return None
        return cls(fields["pid"], fields["started"], fields["boot"], tuple(fields["argv"]))

    def state(self) -> str | None:
        """The letter of proc_pid_stat(5): ``T`` is paused; None where it is gone or a zombie."""
        letter = self._letter()
        if letter is None or letter in "ZX":
            return None
        # Before its exec the launcher carries the program's argv as the end of its own; for a
        # moment within it there is none.
        line = _cmdline(self.pid)
        if line and not line.endswith("\0".join(self.argv).encode() + b"\0"):
            return None
        return letter

    def send(self, number: int) -> bool:
        """Signal exactly this process; whether it was there."""
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            if self.state() is None:  # looked at after the pidfd was opened: it cannot change now
                return False
            signal.pidfd_send_signal(pidfd, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(pidfd)
        return True

    def end(self, number: int = signal.SIGTERM, seconds: float = 10.0) -> None:
        """Signal it and return once it has ended; SIGKILL after so many seconds."""
        for last in (number, signal.SIGKILL):
            if not self.send(last) and self._letter() not in ("Z", "X"):
                return
            self.send(signal.SIGCONT)
            if self.ended(seconds):
                return

    def ended(self, seconds: float) -> bool:
        """Wait for the end of all its threads; whether it came in time.

        Its first thread may be gone (a zombie, no arguments left) while others still hold its
        ports; the pidfd tells when the last has ended.
        """
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            if self._letter() is None:
                return True
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            return bool(poll.poll(seconds * 1000))
        finally:
            os.close(pidfd)
            _reap(self.pid)

    def _letter(self) -> str | None:
        """The state of the pid's first thread, where it still is the one that was started."""
        if self.boot != Path("/proc/sys/kernel/random/boot_id").read_text().strip():
            return None
        fields = _stat(self.pid)
        return fields[0] if fields and int(fields[19]) == self.started else None


def launch(
    argv: Sequence[str], record: Path, log: Path, environment: Mapping[str, str] | None = None
) -> Record:
    """Start a program in a session of its own, its output appended to a log.

    Its environment is the given one and a plain PATH: proxies and tokens of ours are not for it.
    Returns once the record is written, so that the caller can be killed at any time.
    """
    record.unlink(missing_ok=True)
    launcher = [sys.executable, "-IS", str(LAUNCHER), str(record), *argv]
    with log.open("ab") as output:
        process = subprocess.Popen(
            launcher,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            env={"PATH": PATH, **(environment or {})},
        )
    while not record.exists() and process.poll() is None:
        select.select([], [], [], 0.002)
    found = Record.read(record)
    if found is None:
        message = f"{argv[0]} could not be started; see {log}"
        raise ChildProcessError(message)
    process.returncode = 0  # it is not waited for here: it outlives us
    return found


def carrying(*parts: str) -> Iterator[Record]:
    """Living processes whose arguments hold all of these."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    wanted = [part.encode() for part in parts]
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        line, fields = _cmdline(int(entry.name)), _stat(int(entry.name))
        if fields and all(part in line for part in wanted):
            argv = tuple(line.rstrip(b"\0").decode(errors="surrogateescape").split("\0"))
            yield Record(int(entry.name), int(fields[19]), boot, argv)


def _stat(pid: int) -> list[str] | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def _cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def _reap(pid: int) -> None:
    """Take the zombie away where the ended process was a child of ours."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
