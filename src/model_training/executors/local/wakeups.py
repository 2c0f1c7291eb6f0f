"""What a supervisor waits for beside output: signals, as bytes in a pipe it can poll."""

import os
import select
import signal
from pathlib import Path


class Wakeups:
    """SIGTERM and SIGCHLD of this process, from now on; there is one a process."""

    def __init__(self, stop_file: Path) -> None:
        self._stop_file = stop_file
        self._terminated = False
        self.fd, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._on_term)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        # The server starts us with SIGTERM blocked, so that none is lost before this line.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])

    @property
    def stop_asked(self) -> bool:
        """Whether the job shall stop.

        The file is looked at too: a signal cannot cross pid namespaces, and a server may die
        between writing the one and sending the other.
        """
        return self._terminated or self._stop_file.exists()

    @property
    def is_asked_by_service(self) -> bool:
        """Whether it was the service that asked, and not a signal from outside."""
        return self._stop_file.exists()

    def drain(self) -> None:
        """Forget the bytes; what they stood for is looked at anew each time."""
        try:
            while os.read(self.fd, 512):
                pass
        except BlockingIOError:
            pass  # empty, which is what was wanted

    def wait(self, seconds: float) -> None:
        """Wait for a signal, at most so long."""
        if select.select([self.fd], [], [], seconds)[0]:
            self.drain()

    def _on_term(self, _number: int, _frame: object) -> None:
        self._terminated = True
