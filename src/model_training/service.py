"""What can be done with training jobs. Routes translate; this decides and acts.

Every method is given a Principal, loads the object, asks whether the action is permitted on
that object's own attributes, and only then acts. Nothing else knows executor, pipelines, ledger,
logs and access together.
"""

import asyncio
import logging
import shutil
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from model_training.access.actions import Action
from model_training.access.decisions import (
    Resource,
    pair_resource,
    pipeline_resource,
    service_resource,
)
from model_training.access.guard import Guard, unknown_job
from model_training.access.principals import Principal
from model_training.crash_points import reached
from model_training.cursors import decode_cursor, encode_cursor
from model_training.errors import (
    DiskReserveReached,
    IdempotencyConflict,
    InvalidRequest,
    LedgerUnavailable,
    ModelTrainingError,
    OutputNotFound,
    PipelineNotFound,
)
from model_training.executors.base import Executor
from model_training.folders import DataFolder
from model_training.jobs import JobSpec, JobState, JSONObject, TrainingJob, first_record
from model_training.ledger.ledger import JobFilter, Ledger
from model_training.logs.follow import Followers
from model_training.outputs import OpenOutput, OutputFile, list_outputs, open_output
from model_training.pipelines.pipeline import BrokenPipeline, Pipeline, PipelineSource
from model_training.reading import (
    FollowedLog,
    LogAnswer,
    LogFollowing,
    LogSelection,
    read_log,
)
from model_training.submission import SubmitRequest, Target, build_spec, job_id
from model_training.tracker import Tracker

logger = logging.getLogger(__name__)

REPEAT_LOCKS = 64  # requests with an Idempotency-Key at work at once, but for collisions
REBUILD_S = 5.0  # seconds that a request waits for a ledger that is being rebuilt
NEAREST_TOLD = 3  # names like that of an absent pipeline; more would be a list
STREAM_PAGE = 1000  # jobs read from the ledger at a time while a whole list is streamed


@dataclass(frozen=True, slots=True)
class JobPage:
    """One page of a list, newest first; ``next_cursor`` is None on the last."""

    jobs: tuple[TrainingJob, ...]
    next_cursor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the service works with."""

    executor: Executor
    source: PipelineSource
    ledger: Ledger
    tracker: Tracker
    followers: Followers
    guard: Guard
    data: DataFolder


class TrainingService:
    """Submit, list, look at, read, stop and delete training jobs."""

    def __init__(self, parts: Parts, *, disk_reserve: int, namespace: str = "local") -> None:
        self._executor = parts.executor
        self._source = parts.source
        self._ledger = parts.ledger
        self._tracker = parts.tracker
        self._following = LogFollowing(parts.followers)
        self._guard = parts.guard
        self._data = parts.data
        self._disk_reserve = disk_reserve
        self._namespace = namespace
        self._repeats = [asyncio.Lock() for _ in range(REPEAT_LOCKS)]

    @property
    def ready(self) -> bool:
        """Whether the ledger has caught up with the executor once, and that can run jobs."""
        return self._tracker.synced.is_set() and self._executor.is_ready

    async def permit(self, principal: Principal, action: Action) -> None:
        """Pass if the action on the service itself is permitted.

        Raises:
            Forbidden: it is not.
        """
        await self._guard.require(principal, action, service_resource(self._namespace))

    async def counts(self, principal: Principal) -> dict[JobState, int]:
        """How many jobs there are in each state, whoever may read them: it names none."""
        await self.permit(principal, Action.READ)
        return await self._ledger.counts()

    # Submit

    async def plan(self, principal: Principal, request: SubmitRequest) -> JSONObject:
        """What ``submit`` would start; nothing is created."""
        spec = await self._spec(principal, request)
        plan = await self._executor.plan(spec)
        return {**plan, "name": spec.name, "warnings": list(spec.warnings)}

    async def submit(
        self, principal: Principal, request: SubmitRequest
    ) -> tuple[TrainingJob, bool]:
        """Start the job, and whether it is new: a repeat by Idempotency-Key meets the old one.

        On return it is durable.

        Raises:
            InvalidRequest: with every fault of the request; nothing was created.
            PipelineNotFound: nothing was created.
            RegistryUnavailable: whether there is such an image cannot be told; nothing was created.
            IdempotencyConflict: the key stands for another request.
            DiskReserveReached: nothing was created.
        """
        await self._until_known()  # or old jobs would be newer than this one
        if request.idempotency_key is None:
            return await self._launch(await self._spec(principal, request))
        await self._until_synced()  # or a key whose job was not recorded yet would be new
        identity = job_id(principal, request.idempotency_key)
        # Two requests with one key may name two pipelines and so two jobs: one at a time.
        async with self._repeats[identity.int % len(self._repeats)]:
            await self._require_create(principal, request)
            known = await self._ledger.get_by_id(str(identity))
            if known is None:
                return await self._launch(await self._spec(principal, request))
            if request.faults:
                raise InvalidRequest(*request.faults)
            if await self._ledger.request_digest(known.name) != request.digest:
                raise IdempotencyConflict
            return known, False

    async def _require_create(self, principal: Principal, request: SubmitRequest) -> None:
        resource = pipeline_resource(
            request.pipeline,
            namespace=self._namespace,
            executor=self._executor.name,
            parameters=sorted(request.parameters),
            cpu=request.options.cpu,
            memory=request.options.memory,
            gpu=request.options.gpu,
            timeout=request.options.timeout_s,
        )
        await self._guard.require(principal, Action.CREATE, resource)

    async def _spec(self, principal: Principal, request: SubmitRequest) -> JobSpec:
        await self._require_create(principal, request)
        pipeline = await self._resolve(principal, request.pipeline)
        target = Target(self._executor.name, self._namespace, self._executor.cannot_enforce)
        return build_spec(request, pipeline, principal, target)

    async def _launch(self, spec: JobSpec) -> tuple[TrainingJob, bool]:
        await self._require_space()
        seen = await self._executor.launch(spec)
        reached("submit.launched")
        if seen.spec.request_digest != spec.request_digest:
            raise IdempotencyConflict
        # An executor answers with the spec that it accepted, and a repeat was made at another time.
        is_new = seen.spec.created_at == spec.created_at
        try:
            jobs = await self._ledger.apply([seen])
        except LedgerUnavailable:
            # The caller was promised nothing and will ask again, without a key for another job.
            if is_new:
                await self._withdraw(spec.name)
            raise
        reached("submit.recorded")
        self._tracker.tell(jobs)
        # A new job that says nothing new stands in the ledger already, from the executor's report.
        job = jobs[0] if jobs else None if is_new else await self._ledger.get(spec.name)
        return job or first_record(seen), is_new

    async def _withdraw(self, name: str) -> None:
        try:
            await self._executor.remove(name)
        except ModelTrainingError:
            logger.exception("%s was refused to its caller and runs all the same", name)

    async def _require_space(self) -> None:
        free = shutil.disk_usage(self._data.root).free
        if free < self._disk_reserve:
            raise DiskReserveReached(
                f"The disk of {self._data.root} has {free} bytes left, less than the reserve of "
                f"{self._disk_reserve} (setting disk_reserve). Delete jobs that are no longer "
                "needed, or make space."
            )

    # List and look

    async def page(
        self, principal: Principal, job_filter: JobFilter, *, limit: int, cursor: str | None
    ) -> JobPage:
        """One page of the jobs that the principal may read, newest first."""
        begin = decode_cursor(cursor, job_filter) if cursor else None
        readable, before = await self._readable(principal, job_filter)
        if begin is not None:
            before = min(before, begin)
        rows = await self._ledger.page(readable, before=before, limit=limit + 1)
        jobs = tuple(job for _, job in rows[:limit])
        more = len(rows) > limit
        return JobPage(jobs, encode_cursor(rows[limit - 1][0], job_filter) if more else None)

    async def all_jobs(
        self, principal: Principal, job_filter: JobFilter
    ) -> AsyncGenerator[tuple[TrainingJob, ...]]:
        """All jobs that the principal may read, newest first, some at a time.

        Decided whole before the first is yielded.
        """
        readable, before = await self._readable(principal, job_filter)
        return self._pages(readable, before)

    async def _pages(
        self, readable: JobFilter, before: int
    ) -> AsyncGenerator[tuple[TrainingJob, ...]]:
        while rows := await self._ledger.page(readable, before=before, limit=STREAM_PAGE):
            yield tuple(job for _, job in rows)
            before = rows[-1][0]

    async def _readable(self, principal: Principal, job_filter: JobFilter) -> tuple[JobFilter, int]:
        """The filter narrowed to what may be read, and the sequence number where that ends.

        Decided per distinct (pipeline, owner). Jobs with that number or a higher one came after
        the decisions, so nothing was decided about them.
        """
        scope = (
            service_resource(self._namespace)
            if job_filter.pipeline is None
            else pipeline_resource(job_filter.pipeline)
        )
        await self._guard.require(principal, Action.LIST, scope)
        await self._until_known()
        before = await self._ledger.newest() + 1  # only now: a new ledger holds nothing at first
        pairs, resources = _pair_resources(await self._ledger.pairs(job_filter))
        permitted = await self._guard.permitted(principal, Action.READ, resources)
        if all(permitted):
            return job_filter, before
        chosen = frozenset(pair for pair, yes in zip(pairs, permitted, strict=True) if yes)
        return replace(job_filter, pairs=chosen), before

    async def status(self, principal: Principal, name: str) -> TrainingJob:
        """The job.

        Raises:
            JobNotFound: it is not there, or may not be read.
        """
        return await self._job(principal, Action.READ, name)

    async def _job(self, principal: Principal, action: Action, name: str) -> TrainingJob:
        await self._until_known()
        job = await self._ledger.get(name)
        return await self._guard.require_job(principal, action, name, job)

    async def _until_known(self) -> None:
        """A new ledger knows of no job until it has been read from the executor: wait for that.

        Else a job that is there would be answered as one that is not, after a ledger was lost.
        """
        if self._ledger.created:
            await self._until_synced()

    async def _until_synced(self) -> None:
        try:
            async with asyncio.timeout(REBUILD_S):
                await self._tracker.synced.wait()
        except TimeoutError:
            msg = "The jobs that are there are still being read; try again."
            raise LedgerUnavailable(msg, retry_after=1) from None

    # Logs and outputs

    async def read_log(self, principal: Principal, name: str, selection: LogSelection) -> LogAnswer:
        """The log as it is now, from and to where the selection says."""
        job = await self._job(principal, Action.READ_LOGS, name)
        return await read_log(self._data.job(name), job, selection)

    async def permit_log(self, principal: Principal, name: str) -> None:
        """Pass if the log may be read.

        Raises:
            JobNotFound: the job is not there, or may not even be read.
            Forbidden: it may be read, but not its log.
        """
        await self._job(principal, Action.READ_LOGS, name)

    async def follow_log(
        self, principal: Principal, name: str, selection: LogSelection
    ) -> FollowedLog:
        """The log as it is and as it comes, until the job has ended."""
        await self._job(principal, Action.READ_LOGS, name)
        ended = self._tracker.ended(name)
        job = await self._ledger.get(name)
        if job is None or job.state.is_terminal:
            self._tracker.end(name)
        if job is None:
            raise unknown_job(name)

        async def look() -> TrainingJob | None:
            return await self._ledger.get(name)

        return await self._following.follow(
            self._data.job(name), job, selection, ended=ended, look=look
        )

    async def outputs(self, principal: Principal, name: str) -> list[OutputFile]:
        """What the job has kept so far."""
        await self._job(principal, Action.READ_OUTPUTS, name)
        return await asyncio.to_thread(list_outputs, self._output_folder(name))

    async def open_output(self, principal: Principal, name: str, path: str) -> OpenOutput:
        """One file that the job kept; the caller closes it.

        Raises:
            OutputNotFound: there is no such file.
        """
        await self._job(principal, Action.READ_OUTPUTS, name)
        return await asyncio.to_thread(open_output, self._output_folder(name), path)

    def _output_folder(self, name: str) -> Path:
        folder = self._executor.outputs(name)
        if folder is None:
            raise OutputNotFound(
                f"What {name} made cannot be reached from here: it went to its pod, or to a claim "
                "that is not mounted for this service (settings outputs_claim, outputs_folder)."
            )
        return folder

    # Stop and delete

    async def stop(self, principal: Principal, name: str) -> TrainingJob:
        """Ask the job to end; what it is after this moment. One that has ended stays as it is."""
        job = await self._job(principal, Action.STOP, name)
        if job.state.is_terminal:
            return job
        job = await self._ledger.ask(name, "stop", principal.id, datetime.now(UTC)) or job
        reached("stop.asked")
        self._tracker.tell([job])
        await self._executor.stop(name)
        return job

    async def delete(
        self, principal: Principal, name: str, *, wait_s: float = 0.0
    ) -> TrainingJob | None:
        """Ask for the job to be removed; None once nothing of it is left.

        Waits for that at most ``wait_s`` seconds.
        """
        job = await self._job(principal, Action.DELETE, name)
        job = await self._ledger.ask(name, "delete", principal.id, datetime.now(UTC)) or job
        reached("delete.asked")
        self._tracker.tell([job])
        await self._executor.remove(name)
        if wait_s <= 0:
            return job
        try:
            async with asyncio.timeout(wait_s):
                await self._tracker.until_gone(name)
        except TimeoutError:
            return await self._ledger.get(name)
        return None

    # Pipelines

    async def pipelines(self, principal: Principal) -> list[Pipeline | BrokenPipeline]:
        """The pipelines that the principal may see; broken ones say what is wrong with them."""
        await self._guard.require(
            principal, Action.LIST, pipeline_resource(self._namespace, all=True)
        )
        known = await self._source.list()
        resources = [pipeline_resource(pipeline.name or "") for pipeline in known]
        permitted = await self._guard.permitted(principal, Action.READ, resources)
        return [pipeline for pipeline, yes in zip(known, permitted, strict=True) if yes]

    async def pipeline(self, principal: Principal, name: str) -> Pipeline:
        """One pipeline.

        Raises:
            PipelineNotFound: it is not there, or may not be read.
        """
        [permitted] = await self._guard.permitted(principal, Action.READ, [pipeline_resource(name)])
        if not permitted:
            raise PipelineNotFound(name)
        return await self._resolve(principal, name)

    async def _resolve(self, principal: Principal, name: str) -> Pipeline:
        """The pipeline; where there is none, only names that may be read are suggested."""
        try:
            return await self._source.resolve(name)
        except PipelineNotFound as error:
            resources = [pipeline_resource(near) for near in error.nearest]
            permitted = await self._guard.permitted(principal, Action.READ, resources)
            nearest = [near for near, yes in zip(error.nearest, permitted, strict=True) if yes]
            told = tuple(nearest[:NEAREST_TOLD])
            raise PipelineNotFound(name, looked=error.looked, nearest=told) from None


Pairs = tuple[tuple[str | None, str], ...]


@lru_cache(maxsize=32)
def _pair_resources(pairs: frozenset[tuple[str | None, str]]) -> tuple[Pairs, tuple[Resource, ...]]:
    """Each (pipeline, owner), and what is asked about it.

    Kept, because there may be thousands of them, and they are the same from one list to the next.
    """
    ordered = tuple(sorted(pairs, key=str))
    return ordered, tuple(pair_resource(*pair) for pair in ordered)
