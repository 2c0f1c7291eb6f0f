"""GPUs and CPUs of this machine, and who has them."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from model_training.executors.local.jobs import Job
from model_training.jobs import Resources

_GPU = re.compile(r"nvidia(\d+)")


def found_gpus() -> tuple[int, ...]:
    """The indices of the NVIDIA GPUs of this machine."""
    matches = (_GPU.fullmatch(entry.name) for entry in Path("/dev").iterdir())
    return tuple(sorted(int(match[1]) for match in matches if match))


def usable_cpus() -> tuple[int, ...]:
    """The CPUs on which this process may run; empty where affinity cannot be set."""
    if not hasattr(os, "sched_getaffinity"):
        return ()
    return tuple(sorted(os.sched_getaffinity(0)))


class Devices:
    """What there is to hand out."""

    def __init__(self, gpus: Sequence[int], *, limits_memory: bool) -> None:
        self.gpus = tuple(gpus)
        self._cpus = usable_cpus()
        self._limits_memory = limits_memory

    def cannot_enforce(self, resources: Resources) -> Mapping[str, str]:
        """Option name to the reason, for what this machine cannot hold a job to."""
        refused: dict[str, str] = {}
        if resources.gpu > len(self.gpus):
            count = f"{len(self.gpus)} GPU{'s'[: len(self.gpus) != 1]}"
            refused["gpu"] = f"this machine has {count}, {resources.gpu} asked"
        if resources.cpu is not None and (reason := self._cpu_fault(resources.cpu)):
            refused["cpu"] = reason
        if resources.memory is not None and not self._limits_memory:
            refused["memory"] = "this machine cannot limit memory: no cgroup v2 is delegated to us"
        return refused

    def _cpu_fault(self, cpu: float) -> str | None:
        if not self._cpus:
            return "this system cannot bind a job to CPUs"
        if cpu != int(cpu):
            return f"a job is bound to whole CPUs here, {cpu:g} is none"
        if not 1 <= cpu <= len(self._cpus):
            return f"a job can have 1 to {len(self._cpus)} CPUs of this machine, {cpu:g} asked"
        return None

    def free_gpus(self, holders: Iterable[Job]) -> tuple[int, ...]:
        """The GPUs that nobody holds."""
        taken = {gpu for job in holders for gpu in job.gpus}
        return tuple(gpu for gpu in self.gpus if gpu not in taken)

    def quiet_cpus(self, holders: Iterable[Job], count: int) -> tuple[int, ...]:
        """So many CPUs, those first that are handed out least."""
        held = Counter(cpu for job in holders for cpu in job.cpus)
        return tuple(sorted(sorted(self._cpus, key=lambda cpu: held[cpu])[:count]))
