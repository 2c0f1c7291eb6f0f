"""A token that a program prints: ``token_command`` of ``client.toml``.

The program is run without a shell, and as any command in the terminal: it may ask the person in
front of it there, and what it says on stderr they see. Its output is kept in memory until it ends
or is refused, because such programs take seconds and ask somebody else. It is stored nowhere: it
would be one more file with a secret, and the program may keep one itself.
"""

import os
import selectors
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from model_training.client.bearer_tokens import TOKEN_BYTES, checked_token, end_of
from model_training.errors import SettingsError, Unauthenticated

RUN_S: Final = 30.0  # seconds; it may have to ask a person's second factor
EARLY_S: Final = 30.0  # seconds before its end: for requests on their way, and clocks that differ
EARLY_PART: Final = 0.2  # of its life at most: for a token of half a minute it is not run each time
# Seconds before it is run again after it gave what was refused: each run may want a second factor.
AGAIN_S: Final = 5.0


class TokenCommand:
    """What the program prints. One run at a time serves all threads.

    Args:
        argv: program and arguments; they may be secrets, so that only the first is ever shown.
        now: seconds since 1970.
        run_s: seconds that it may take.
    """

    def __init__(
        self, argv: Sequence[str], now: Callable[[], float] = time.time, *, run_s: float = RUN_S
    ) -> None:
        self._argv = tuple(argv)
        self._now = now
        self._run_s = run_s
        self._lock = threading.Lock()
        self._token: str | None = None
        self._asked_at = float("-inf")
        self._in_vain_at = float("-inf")

    def token(self) -> str:
        """What was printed last, or anew where that ends soon.

        Raises:
            Unauthenticated: the program gives none.
        """
        with self._lock:
            if self._token is None or self._ends_soon(self._token):
                self._token = self._ask()
            return self._token

    def renew(self, refused: str) -> bool:
        """Run it again, unless another thread did so meanwhile; whether it gave another token."""
        with self._lock:
            if self._token == refused and self._now() >= self._in_vain_at + AGAIN_S:
                self._token = self._ask()
                if self._token == refused:
                    self._in_vain_at = self._now()
            return self._token != refused

    def _ends_soon(self, token: str) -> bool:
        end = end_of(token)
        if end is None:
            return False
        return self._now() >= end - min(EARLY_S, (end - self._asked_at) * EARLY_PART)

    def _ask(self) -> str:
        printed = self._run()
        self._asked_at = self._now()
        try:
            return checked_token(printed.decode("ascii", "replace"), "its output")
        except SettingsError as error:
            raise self._failed(error.message.rstrip(".")) from None

    def _run(self) -> bytes:
        try:
            process = subprocess.Popen(
                self._argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, bufsize=0
            )
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "its words are no text"
            raise self._failed(f"it cannot be started: {reason}") from None
        with process:
            try:
                printed = self._output(process)
            except TimeoutError:
                raise self._failed(f"it did not end within {self._run_s:g} s") from None
            finally:
                if process.poll() is None:
                    process.kill()
        if len(printed) > TOKEN_BYTES:
            raise self._failed(f"it printed more than the {TOKEN_BYTES} bytes of a token")
        if process.returncode:
            raise self._failed(f"it ended with {process.returncode}")
        return printed

    def _output(self, process: "subprocess.Popen[bytes]") -> bytes:
        """All that it prints, or a byte more than a token has: it may print for ever."""
        deadline = time.monotonic() + self._run_s
        printed = b""
        assert process.stdout is not None  # noqa: S101 it was asked for
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while len(printed) <= TOKEN_BYTES:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError
                piece = os.read(process.stdout.fileno(), TOKEN_BYTES)
                if not piece:
                    break
                printed += piece
        if len(printed) <= TOKEN_BYTES:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                raise TimeoutError from None
        return printed

    def _failed(self, reason: str) -> Unauthenticated:
        return Unauthenticated(
            f"The token_command {self._argv[0]!r} of client.toml gave no token: {reason}. "
            "Run it by hand to see why."
        )
