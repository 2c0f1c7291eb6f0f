"""A training job whose processes do not want to go: one way of it for each KIND.

Every process of it carries the job's name in its environment or, where it was started with an
empty one, in its arguments.
"""

import json
import os
import signal
import sys
import time

STORM = 200  # processes alive at a time


def last(seconds: float = 600.0) -> None:
    time.sleep(seconds)


def double_fork() -> None:
    """A daemon by the book: two forks, so that its parent is gone."""
    if os.fork() == 0:
        if os.fork() == 0:
            last()
        os._exit(0)
    os.wait()


def marked_session() -> None:
    """A session of its own after two forks, SIGTERM ignored; its environment stays."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            last()
        os._exit(0)
    os.wait()


def own_session() -> None:
    """The same with an empty environment, by which nobody could find it."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            argv = [sys.executable, "-S", "-E", "-c", "import time; time.sleep(600)"]
            os.execve(sys.executable, [*argv, os.environ["MODEL_TRAINING_OUTPUT"]], {})
        os._exit(0)
    os.wait()


def nohup() -> None:
    """What people do in a shell: nohup, in the background, output elsewhere."""
    os.system("nohup sleep 600 >/dev/null 2>&1 &")


def deaf() -> None:
    """SIGTERM is ignored by the command itself and by its child."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork() == 0:
        last()


def storm() -> None:
    """So many processes, each of which forks its successor and goes, SIGTERM ignored."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for number in range(STORM):
        if os.fork() == 0:
            while True:
                time.sleep(0.2 + number * 0.002)
                if os.fork():
                    os._exit(0)


KINDS = {
    each.__name__: each for each in (double_fork, marked_session, own_session, nohup, deaf, storm)
}

if __name__ == "__main__":
    KINDS[json.loads(os.environ["MODEL_TRAINING_PARAMETERS"])["kind"]]()
    print("ready", flush=True)
    last()
