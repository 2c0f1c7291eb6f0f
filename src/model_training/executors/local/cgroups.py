"""A cgroup v2 of its own for a job, where this user may make one.

It makes ending a job certain (``cgroup.kill`` misses nothing, whatever forks), names an
out-of-memory kill as what it is, and limits memory where that controller was delegated to us.
Where there is none everything else still works: the supervisor finds its tree by itself.

Standard library only: the supervisor uses it too.
"""

import contextlib
import os
from pathlib import Path

from model_training.executors.local import processes

LEAF = "server"  # systemd makes it with DelegateSubgroup=server; else we do
REMOVE_TRIES = 50  # of 10 ms; the kernel needs a moment to let go of the last process


def delegated() -> Path | None:
    """The cgroup in which this process may make others: its own, or the one above its leaf."""
    own = _own_cgroup()
    if own is None:
        return None
    parent = own.parent if own.name == LEAF else own
    is_ours = os.access(parent / "cgroup.procs", os.W_OK) and os.access(parent, os.W_OK)
    return parent if is_ours else None


def offers(parent: Path | None, controller: str) -> bool:
    """Whether cgroups made in ``parent`` have this controller; asks the kernel to give it.

    A cgroup whose children have controllers may hold no process itself, so this process steps
    aside into a leaf, if it is alone; processes of others are not ours to move.
    """
    if parent is None:
        return False
    control = parent / "cgroup.subtree_control"
    try:
        if controller in control.read_text().split():
            return True
        if controller not in (parent / "cgroup.controllers").read_text().split():
            return False
        if (parent / "cgroup.procs").read_text().split() == [str(os.getpid())]:
            (parent / LEAF).mkdir(exist_ok=True)
            join(parent / LEAF)
        control.write_text(f"+{controller}")
    except OSError:  # not ours to change, or others stand in it (EBUSY)
        return False
    return True


def make(parent: Path, name: str, memory: int | None) -> Path | None:
    """A cgroup of this name, empty; None where the kernel cannot end a whole one (before 5.14).

    Raises:
        OSError: ``memory`` bytes were asked for and cannot be enforced.
    """
    cgroup = parent / name
    try:
        cgroup.mkdir(exist_ok=True)
        if memory is not None:
            (cgroup / "memory.max").write_text(str(memory))
            (cgroup / "memory.oom.group").write_text("1")
    except OSError:
        remove(cgroup)
        if memory is not None:
            raise
        return None
    if not (cgroup / "cgroup.kill").exists():
        remove(cgroup)
        return None
    return cgroup


def join(cgroup: Path) -> None:
    """Move the calling process in."""
    (cgroup / "cgroup.procs").write_text("0")


def kill(cgroup: Path) -> None:
    """SIGKILL for everything in it, forks in flight included."""
    with contextlib.suppress(FileNotFoundError):  # removed already, so it was empty
        (cgroup / "cgroup.kill").write_text("1")


def is_empty(cgroup: Path) -> bool:
    """Whether no process is left in it."""
    try:
        return "populated 0" in (cgroup / "cgroup.events").read_text()
    except FileNotFoundError:
        return True


def oom_kills(cgroup: Path) -> int:
    """How many processes in it the kernel killed for want of memory."""
    try:
        words = (cgroup / "memory.events").read_text().split()
    except OSError:  # no memory controller here, or nobody can tell any more
        return 0
    return int(dict(zip(words[::2], words[1::2], strict=False)).get("oom_kill", "0"))


def end(cgroup: Path) -> None:
    """Kill everything in it and remove it."""
    kill(cgroup)
    remove(cgroup)


def remove(cgroup: Path) -> None:
    """Remove it, once the kernel has let go of its last process."""
    for _ in range(REMOVE_TRIES):
        try:
            cgroup.rmdir()
        except FileNotFoundError:
            return
        except OSError:  # EBUSY: somebody is still dying in it
            processes.pause(0.01)
        else:
            return


def _own_cgroup() -> Path | None:
    try:
        memberships = Path("/proc/self/cgroup").read_text().splitlines()
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    except FileNotFoundError:  # not Linux
        return None
    own = next((line[3:] for line in memberships if line.startswith("0::")), None)
    if own is None:
        return None
    for mount in mounts:
        fields, _, kind = mount.partition(" - ")
        root, point = fields.split()[3:5]
        if kind.startswith("cgroup2 ") and Path(own).is_relative_to(root):
            return Path(point) / Path(own).relative_to(root)
    return None
