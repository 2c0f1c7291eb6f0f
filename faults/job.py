"""The training job of the fault campaigns: everything it prints follows from its seed.

So whoever knows the seed can say, byte for byte, what the log must hold. What the job really did
(that it started, how far it printed, with which code it left, and why) it appends to a file of
the witness, outside the service's data folder: a line each, which ends with the machine's monotonic
time, the same in a container and outside. Parameters, by their own names: ``seed``,
``pieces``, ``pause`` (seconds between two pieces), ``exit_code``, ``on_term`` (``die``, or the
code to leave with), ``truth`` (folder of those files) and ``gate`` (wait at the end until this
file is there).
"""

import hashlib
import os
import signal
import sys
import time


def piece(seed: int, number: int) -> bytes:
    """Piece ``number`` of what the job prints: lines, progress, half characters, NUL, noise."""
    noise = hashlib.sha256(f"{seed}:{number}".encode()).digest()
    match noise[0] % 8:
        case 0:
            return f"\r{number} %".encode()
        case 1:
            return noise + b"\0\xff\xfe"
        case 2:
            return b"loss \xe2\x82"  # half of a euro sign, the rest may never come
        case 3:
            return b"\xac\n"
        case 4:
            return noise.hex().encode() * (noise[1] // 8) + b"\n"
        case _:
            return f"epoch {number} of {seed}: {noise.hex()}\n".encode()


def words(seed: int, pieces: int) -> bytes:
    """Everything that a job of this seed prints in so many pieces."""
    return b"".join(piece(seed, number) for number in range(pieces))


class Job:
    """One run, as its environment wants it."""

    def __init__(self, given: "os._Environ[str]") -> None:
        self.seed = int(given["seed"])
        self.pieces = int(given["pieces"])
        self.pause = float(given["pause"])
        self.exit_code = int(given["exit_code"])
        self.on_term = given["on_term"]
        self.gate = given.get("gate", "")
        path = os.path.join(given["truth"], given["MODEL_TRAINING_JOB"])
        self.truth = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.said = 0

    def note(self, *what: object) -> None:
        words = [*map(str, what), f"{time.monotonic():.3f}"]
        os.write(self.truth, (" ".join(words) + "\n").encode())

    def leave(self, code: int, why: str) -> None:
        self.note("exit", code, self.said, why)
        sys.exit(code)

    def rest(self, seconds: float) -> None:
        """Wait; leave if SIGTERM came, which can come at no other place."""
        if self.on_term == "die":
            signal.sigtimedwait([], seconds)
        elif signal.sigtimedwait([signal.SIGTERM], seconds):
            self.leave(int(self.on_term), "term")

    def run(self) -> None:
        if self.on_term != "die":
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        self.note("start", os.getpid())
        for number in range(self.pieces):
            data = piece(self.seed, number)
            while data:
                data = data[os.write(1, data) :]
            self.said = number + 1
            self.note("said", self.said)
            self.rest(self.pause)
        while self.gate and not os.path.exists(self.gate):
            self.rest(0.1)
        self.leave(self.exit_code, "done")


if __name__ == "__main__":
    Job(os.environ).run()
