"""The moments at which ``scripts/faults`` kills the service, to see that nothing is lost.

A crash is worth testing where one step is durable and the next has not begun; those moments are
named here and nowhere else, and the code says ``reached("...")`` when it comes by. With
``MODEL_TRAINING_CRASH_AT=NAME:COUNT`` in the environment the process kills itself, as a power
cut would, the COUNT-th time it reaches NAME. Otherwise this costs one comparison.
"""

import os
import signal
import threading

VARIABLE = "MODEL_TRAINING_CRASH_AT"

POINTS: dict[str, str] = {
    "launch.folder-made": "local: the new job's folder is made, empty",
    "launch.spec-written": "local: its spec is durable, under a name that nobody looks at",
    "launch.marker-written": "local: it is marked as open",
    "launch.renamed": "local: it stands in its shard, which is acceptance",
    "start.lock-taken": "local: the job's lock is held by the server, nobody spawned",
    "start.spawned": "local: the supervisor runs, the server has not noted it",
    "stop.written": "local: the stop is durable, no signal sent",
    "end.observed": "local: the supervisor has gone, its record is not read",
    "remove.renamed": "local: the folder is on its way out, not yet removed",
}


def _armed() -> tuple[str, int]:
    name, _, count = os.environ.get(VARIABLE, "").partition(":")
    return name, int(count or 1)


_NAME, _COUNT = _armed()
_lock = threading.Lock()
_hits = 0


def reached(point: str) -> None:
    """Die here, if this is the point and the time that was asked for."""
    if point != _NAME:
        return
    global _hits  # noqa: PLW0603 - one count a process, shared by its threads
    with _lock:
        _hits += 1
        if _hits == _COUNT:
            os.kill(os.getpid(), signal.SIGKILL)
