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
    "submit.launched": "service: the executor has accepted the job, the ledger does not know it",
    "submit.recorded": "service: the ledger knows the new job, nobody was answered",
    "launch.folder-made": "local: the new job's folder is made, empty",
    "launch.spec-written": "local: its spec is durable, under a name that nobody looks at",
    "launch.marker-written": "local: it is marked as open",
    "launch.renamed": "local: it stands in its shard, which is acceptance",
    "start.lock-taken": "local: the job's lock is held by the server, nobody spawned",
    "start.spawned": "local: the supervisor runs, the server has not noted it",
    "stop.written": "local: the stop is durable, no signal sent",
    "stop.asked": "service: the ledger knows of the stop, the executor was not told",
    "end.observed": "local: the supervisor has gone, its record is not read",
    "track.recorded": "tracker: what was seen is in the ledger, nothing was done about it",
    "follow.sent": "api: a piece of a followed log, or of another stream, is sent",
    "delete.asked": "service: the ledger knows of the removal, the executor was not told",
    "remove.renamed": "local: the folder is on its way out, not yet removed",
    "remove.gone": "tracker: nothing is left at the executor, the row is",
    "remove.forgotten": "tracker: the row has gone, nobody was told",
    "launch.created": "kubernetes: the cluster has the new Job, the executor has not noted it",
    "stop.marked": "kubernetes: the stop is durable, the Job is not deleted",
    "remove.deleted": "kubernetes: the cluster has nothing of the job, its folder is there",
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
