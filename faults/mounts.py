"""Mounts for the campaigns that run in a mount namespace of their own (``run.py``).

They end with the namespace; nobody outside of it ever sees them.
"""

import subprocess
from pathlib import Path


class CannotMount(Exception):
    """This machine does not let us; the campaign has shown nothing."""


def bind(source: Path, target: Path) -> None:
    _run("mount", "--bind", str(source), str(target))


def tmpfs(target: Path, size: int) -> None:
    """A file system of so many bytes."""
    _run("mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "faults", str(target))


def hide_cgroups() -> None:
    """From now on a service that starts finds no cgroups, as most people's does."""
    tmpfs(Path("/sys/fs/cgroup"), 4096)


def unmount(target: Path) -> None:
    _run("umount", str(target))


def _run(*argv: str) -> None:
    done = subprocess.run(argv, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        words = done.stdout.decode().strip()
        raise CannotMount(
            f"{' '.join(argv)}: {words}. This campaign needs root, or a system that allows user "
            "namespaces (sysctl kernel.unprivileged_userns_clone=1)."
        )
