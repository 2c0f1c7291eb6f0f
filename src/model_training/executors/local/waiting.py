"""The queue: jobs that wait for a slot or a GPU, first in, first out, nobody overtakes."""

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence

from model_training.executors.local.jobs import Job


class WaitingLine:
    """Jobs in the order of their acceptance."""

    def __init__(self, slots: int, gpus: int) -> None:
        self._slots = slots
        self._gpus = gpus
        self._jobs: list[Job] = []

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[Job]:
        return iter(self._jobs)

    def join(self, job: Job) -> None:
        """Stand in line, by the number that was given at acceptance."""
        insort(self._jobs, job, key=_place)

    def leave(self, job: Job) -> None:
        """Wait no more."""
        self._jobs.remove(job)

    def next(self, active: int, free_gpus: Sequence[int]) -> Job | None:
        """Who starts now, taken out of the line; None if nobody can."""
        if not self._jobs or active >= self._slots:
            return None
        if self._jobs[0].spec.resources.gpu > len(free_gpus):
            return None
        return self._jobs.pop(0)

    def message(self, job: Job, active: int, free_gpus: int, before: int | None = None) -> str:
        """What a job waits for, for people.

        Args:
            job: it waits.
            active: jobs that hold a slot.
            free_gpus: GPUs that nobody holds.
            before: jobs that stand before it, where the caller knows; else it is looked up.
        """
        if before is None:
            before = bisect_left(self._jobs, job.sequence, key=_place)
        wanted = job.spec.resources.gpu
        if active < self._slots and wanted > free_gpus:
            what = f"waits for {wanted} GPU{'s'[: wanted > 1]}, {free_gpus} of {self._gpus} free"
        else:
            what = f"waits for one of {self._slots} slot{'s'[: self._slots > 1]}"
        ahead = f"{before} job{'s'[: before > 1]} before it" if before else "next in line"
        return f"{what}; {ahead}"


def _place(job: Job) -> int:
    return job.sequence
