"""The executor of one machine: jobs are processes, and each has a supervisor of its own.

The folders and locks of the jobs are the truth; what is held here is read from them at the start
and could be thrown away at any moment. Jobs do not notice when the server comes or goes.

All changes of state happen on the event loop, one after the other; what touches the disk or
starts a process runs in threads, on one job at a time.
"""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Final, Self

from model_training import names
from model_training.errors import ExecutorUnavailable, JobRejected
from model_training.executors.base import Change, Snapshot
from model_training.executors.local import cgroups, endings, jobs, records, shelves
from model_training.executors.local.devices import Devices, found_gpus
from model_training.executors.local.feed import Feed
from model_training.executors.local.intake import Applicant, Intake
from model_training.executors.local.jobs import Job, Phase
from model_training.executors.local.removals import Removals
from model_training.executors.local.supervision import Supervision, now
from model_training.executors.local.threads import Tasks, Threads
from model_training.executors.local.waiting import WaitingLine
from model_training.folders import DataFolder
from model_training.jobs import (
    JobSpec,
    JobState,
    JSONObject,
    Observation,
    Reason,
    Resources,
    resources_to_json,
)
from model_training.logs.segments import LOG_LIMIT

REFRESH_S: Final = 1.0  # the least time between two rounds of what waiting jobs wait for
REFRESH_PER_JOB_S: Final = 0.002  # and so much more for each, as all of them are recorded anew


class LocalExecutor:
    """Runs jobs as processes of this machine, so many at a time as there are slots."""

    def __init__(
        self,
        data: DataFolder,
        *,
        slots: int,
        gpus: Sequence[int] | None = None,
        log_limit: int = LOG_LIMIT,
        digest_of: Callable[[Path], str | None] | None = None,
    ) -> None:
        """Say what there is to work with; nothing happens yet.

        Args:
            data: the service's folder; one executor at a time works on it.
            slots: jobs that run at the same time, 1 or more.
            gpus: indices of the GPUs to hand out; None for all that are found.
            log_limit: bytes kept of one job's log.
            digest_of: the digest of a folder of code, taken when a job starts; None for none.
        """
        self._data = data
        self._log_limit = log_limit
        self._cgroup = cgroups.delegated()
        chosen = found_gpus() if gpus is None else tuple(gpus)
        self._devices = Devices(chosen, limits_memory=cgroups.offers(self._cgroup, "memory"))
        self._threads = Threads()
        self._short_tasks = Tasks()  # what was promised to a caller: finished before we leave
        self._long_tasks = Tasks()  # what goes on without us
        self._intake = Intake(data, self._threads, self._short_tasks)
        self._removals = Removals(data, self._threads, self._long_tasks)
        self._feed = Feed()
        self._supervision = Supervision(self._threads, self._feed.publish, digest_of)
        self._jobs: dict[str, Job] = {}
        self._active: set[Job] = set()
        self._line = WaitingLine(slots, len(chosen))
        self._accepting: dict[str, asyncio.Task[Observation]] = {}
        self._stopping: dict[str, asyncio.Task[None]] = {}
        self._sequence = itertools.count(1)
        self._refresh_timer: asyncio.TimerHandle | None = None

    @property
    def name(self) -> str:
        """``local``."""
        return "local"

    @property
    def is_ready(self) -> bool:
        """Always: it is this machine."""
        return True

    async def __aenter__(self) -> Self:
        """Find the jobs of an earlier life and go on with them."""
        try:
            await self._threads.run(shelves.prepare, self._data)
            found = await self._threads.run(shelves.find_open, self._data)
        except OSError as error:
            self._threads.close()
            msg = f"The data folder {self._data.root} cannot be used: {error}"
            raise ExecutorUnavailable(msg) from error
        self._sequence = itertools.count(max((each.sequence for each in found), default=0) + 1)
        for each in found:
            self._take_over(each)
        self._fill()
        self._refresh()
        self._removals.finish_earlier()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Leave; jobs run on, and waiting ones wait for the next life."""
        if self._refresh_timer:
            self._refresh_timer.cancel()
        await self._short_tasks.finish()
        await self._long_tasks.cancel()
        self._threads.close()

    def cannot_enforce(self, resources: Resources) -> Mapping[str, str]:
        """The options that this machine cannot hold a job to, with the reason."""
        return self._devices.cannot_enforce(resources)

    async def plan(self, spec: JobSpec) -> JSONObject:
        """The process that would be started. Values of ``pass_env`` are not in it."""
        return {
            "executor": self.name,
            "name": spec.name,
            "command": list(spec.command),
            "folder": spec.folder,
            "environment": dict(spec.environment) | jobs.variables(spec, self._data.job(spec.name)),
            "pass_env": list(spec.pass_env),
            "requirements": spec.requirements,
            "timeout_s": spec.timeout_s,
            "grace_s": spec.grace_s,
            "resources": resources_to_json(spec.resources),
            "output": str(self._data.job(spec.name).output),
        }

    # Accepting

    async def launch(self, spec: JobSpec) -> Observation:
        """Accept the job: see ``Executor.launch``."""
        if job := self._jobs.get(spec.name):
            return job.observation
        accepting = self._accepting.get(spec.name)
        if accepting is None:
            self._check(spec)
            if self._removals.are_forgetting(spec.name):  # and would take the new one along
                msg = f"What is left of an earlier {spec.name} is being removed; try again."
                raise ExecutorUnavailable(msg)
            # A task of its own: a caller that goes away must not leave a job half in.
            accepting = self._short_tasks.start(self._accept(spec))
            self._accepting[spec.name] = accepting
            accepting.add_done_callback(lambda _done: self._accepting.pop(spec.name))
        return await asyncio.shield(accepting)

    def _check(self, spec: JobSpec) -> None:
        if not names.is_job_name(spec.name):
            msg = f"{spec.name!r} cannot be the name of a job."
            raise JobRejected(msg)
        if spec.image is not None or not spec.command:
            msg = f"The pipeline {spec.pipeline} names no command to run on this machine."
            raise JobRejected(msg)
        if refused := self.cannot_enforce(spec.resources):
            raise JobRejected("; ".join(f"{name}: {why}" for name, why in refused.items()))

    async def _accept(self, spec: JobSpec) -> Observation:
        process: JSONObject = {
            "environment": jobs.variables(spec, self._data.job(spec.name)),
            "environments": str(self._data.environments),
            "log_limit": self._log_limit,
        }
        sequence = next(self._sequence)
        if not await self._intake.accept(Applicant(spec, sequence, process)):
            return await self._existing(spec.name)
        job = jobs.accepted(spec, self._data.job(spec.name), sequence)
        self._jobs[spec.name] = job
        self._line.join(job)
        self._fill()
        if job.phase is Phase.WAITING:
            message = self._line.message(job, len(self._active), len(self._free_gpus()))
            job.see(JobState.PENDING, reason=Reason.WAITING_FOR_SLOT, message=message)
        self._feed.publish(job.observation)
        return job.observation

    async def _existing(self, name: str) -> Observation:
        if job := self._jobs.get(name):
            return job.observation
        found = await self._threads.run(shelves.find, self._data, name)
        if found is None:
            marker = self._data.open_jobs / name
            msg = f"Something of {name} is there without a spec; move its folder and {marker} away."
            raise ExecutorUnavailable(msg)
        return jobs.from_folder(found).observation

    # Running

    def _take_over(self, found: shelves.Found) -> None:
        """Go on with a job of an earlier life."""
        job = jobs.from_folder(found)
        self._jobs[job.spec.name] = job
        if job.phase is Phase.ACTIVE:
            self._active.add(job)
            self._long_tasks.start(self._adopt(job))
        elif job.phase is Phase.WAITING and job.is_stopping:
            self._short_tasks.start(self._end_waiting(job))
        elif job.phase is Phase.WAITING:
            self._line.join(job)

    def _fill(self) -> None:
        """Start who can start; then those who still wait see it move."""
        while job := self._line.next(len(self._active), self._free_gpus()):
            self._activate(job)
        if self._line and self._refresh_timer is None:
            delay = max(REFRESH_S, REFRESH_PER_JOB_S * len(self._line))
            self._refresh_timer = asyncio.get_running_loop().call_later(delay, self._refresh)

    def _activate(self, job: Job) -> None:
        wanted = job.spec.resources
        job.gpus = self._free_gpus()[: wanted.gpu]
        job.cpus = self._devices.quiet_cpus(self._active, int(wanted.cpu or 0))
        job.phase = Phase.ACTIVE
        self._active.add(job)
        job.see_run()
        self._long_tasks.start(self._begin(job))

    async def _begin(self, job: Job) -> None:
        assigned: records.Record = {
            "gpus": list(job.gpus) if self._devices.gpus else None,
            "cpus": list(job.cpus),
            "cgroup": str(self._cgroup) if self._cgroup else None,
        }
        self._finish(job, await self._supervision.begin(job, assigned))

    async def _adopt(self, job: Job) -> None:
        end = await self._supervision.adopt(job)
        if end is None:  # it was about to be started and nothing came of it
            await self._begin(job)
        else:
            self._finish(job, end)

    def _finish(self, job: Job, end: records.Record) -> None:
        self._active.discard(job)
        self._feed.publish(job.see_end(end))
        self._fill()

    def _free_gpus(self) -> tuple[int, ...]:
        return self._devices.free_gpus(self._active)

    def _refresh(self) -> None:
        """Tell those that wait what they wait for now, all in one batch."""
        if self._refresh_timer:
            self._refresh_timer.cancel()
            self._refresh_timer = None
        fresh: list[Observation] = []
        active, free_gpus = len(self._active), len(self._free_gpus())
        for before, job in enumerate(self._line):
            message = self._line.message(job, active, free_gpus, before)
            if job.observation.message != message:
                fresh.append(
                    job.see(JobState.PENDING, reason=Reason.WAITING_FOR_SLOT, message=message)
                )
        self._feed.publish(*fresh)

    # Stopping and removing

    async def stop(self, name: str) -> None:
        """Ask the job to end: see ``Executor.stop``."""
        job = self._jobs.get(name)
        stopping = self._stopping.get(name)
        if stopping is None:
            if job is None or job.phase is Phase.ENDED or job.is_stopping:
                return
            job.is_stopping = True
            is_waiting = job.phase is Phase.WAITING
            if is_waiting:  # at once: before the task begins, the line may move and start the job
                self._line.leave(job)
            end = self._end_waiting(job) if is_waiting else self._ask_stop(job)
            stopping = self._short_tasks.start(end)
            self._stopping[name] = stopping
            stopping.add_done_callback(lambda _done: self._stopping.pop(name))
        await asyncio.shield(stopping)

    async def _end_waiting(self, job: Job) -> None:
        """End a job that has left the line."""
        try:
            end = await self._threads.run(endings.end_unstarted, job.folder, now())
        except OSError as error:
            job.is_stopping = False
            self._line.join(job)
            self._fill()
            raise _cannot_stop(job, error) from error
        self._finish(job, end)

    async def _ask_stop(self, job: Job) -> None:
        try:
            await self._threads.run(endings.ask_stop, job.folder, now())
        except OSError as error:
            # On a full disk the signal alone must do: a supervisor that got it stops the job.
            if not records.is_full(error) or job.pidfd is None:
                job.is_stopping = False
                raise _cannot_stop(job, error) from error
        if job.phase is Phase.ACTIVE:
            self._supervision.signal(job)
            self._feed.publish(job.see_run())

    async def remove(self, name: str) -> None:
        """Stop whatever runs of the job and forget it: see ``Executor.remove``."""
        job = self._jobs.get(name) or await self._find(name)
        if job is None:
            self._removals.forget(
                name, lambda: self._feed.publish(jobs.gone_unknown(self._data.job(name)))
            )
            return
        if not job.is_removing:
            job.is_removing = True  # before anything is awaited: many may ask at once
            await asyncio.shield(self._short_tasks.start(self._begin_removal(job)))

    async def _begin_removal(self, job: Job) -> None:
        try:
            if job.phase is Phase.WAITING and not job.is_stopping:
                await self._withdraw(job)
            else:
                await self.stop(job.spec.name)
        except BaseException:  # whatever it was: it can be asked for again
            job.is_removing = False
            raise
        self._long_tasks.start(self._remove(job))

    async def _withdraw(self, job: Job) -> None:
        """Take a job that never started out of sight. Needs no space, unlike writing its end."""
        self._line.leave(job)
        job.is_stopping = True
        try:
            await self._threads.run(shelves.set_aside, self._data, job.spec.name)
        except OSError as error:
            with suppress(OSError):
                await self._threads.run(shelves.mark_open, self._data, job.folder)
            job.is_stopping = False
            self._line.join(job)
            self._fill()
            raise _cannot_stop(job, error) from error
        job.phase = Phase.ENDED
        job.ended.set()
        self._fill()

    async def _find(self, name: str) -> Job | None:
        """A job that was settled, or is being accepted."""
        try:
            found = await self._threads.run(shelves.find, self._data, name)
        except ExecutorUnavailable:  # its spec is broken: removed as one that is not known
            found = None
        if accepting := self._accepting.get(name):
            await asyncio.wait([accepting])
        if found is None or name in self._jobs:
            return self._jobs.get(name)
        self._take_over(found)  # the line does not move before it is out of it again
        return self._jobs[name]

    async def _remove(self, job: Job) -> None:
        await job.ended.wait()
        await self._removals.discard(job.spec.name)
        del self._jobs[job.spec.name]
        self._feed.publish(jobs.gone(job.spec, job.folder, job.observation))

    def outputs(self, name: str) -> Path | None:
        """The job's own output folder."""
        return self._data.job(name).output

    # Observing

    async def observe(self, *, everything: bool = False) -> AsyncGenerator[Snapshot | Change]:
        """What there is, then what changes: see ``Executor.observe``."""
        reader = self._feed.open()
        try:
            settled = await self._find_settled() if everything else []
            found = [*settled, *(job.observation for job in self._jobs.values())]
            yield Snapshot(sorted(found, key=lambda seen: seen.spec.created_at))
            async with aclosing(reader.changes()) as changes:
                async for change in changes:
                    yield change
        finally:
            self._feed.close(reader)

    async def _find_settled(self) -> list[Observation]:
        known = frozenset(self._jobs)
        found = await self._threads.run(shelves.find_others, self._data, known)
        settled: list[Observation] = []
        for each in found:
            name = each.spec.name
            if name in self._jobs or name in self._accepting:
                continue
            if each.exit:
                settled.append(jobs.from_folder(each).observation)
            else:  # its marker was lost
                await self._threads.run(shelves.mark_open, self._data, each.folder)
                self._take_over(each)
        self._fill()
        return settled

    async def write_off(self, names: Iterable[str]) -> Collection[str]:
        """All of them: their logs have gone with their folders."""
        return tuple(names)

    async def settle(self, names: Iterable[str]) -> None:
        """The ends of these jobs are recorded: see ``Executor.settle``."""
        ended = [
            name
            for name in names
            if (job := self._jobs.get(name)) and job.phase is Phase.ENDED and not job.is_removing
        ]
        await self._threads.run(shelves.settle, self._data, ended)
        for name in ended:
            if (job := self._jobs.get(name)) and not job.is_removing:
                del self._jobs[name]


def _cannot_stop(job: Job, error: OSError) -> ExecutorUnavailable:
    return ExecutorUnavailable(f"{job.spec.name} cannot be stopped now: {error.strerror}")
