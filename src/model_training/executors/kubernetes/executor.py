"""The executor of a cluster: a training job is one Job, and the cluster is the queue.

Two reflectors keep what the API server has of Jobs and Pods under the reserved prefix; what they
change is looked at anew and told. Nothing here is a second scheduler: we create Jobs, delete them,
and tell what became of them.
"""

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncGenerator, Collection, Coroutine, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from model_training import trees
from model_training.crash_points import reached
from model_training.errors import ExecutorUnavailable, JobRejected
from model_training.executors.base import Change, Snapshot
from model_training.executors.kubernetes import paths, stops
from model_training.executors.kubernetes.api import ApiError, KubernetesApi
from model_training.executors.kubernetes.collector import Collector
from model_training.executors.kubernetes.explaining import Explainer
from model_training.executors.kubernetes.jobs import Job, last_state, unknown_spec
from model_training.executors.kubernetes.manifest import Site, job_manifest
from model_training.executors.kubernetes.objects import (
    JobRow,
    PodRow,
    decode_job,
    decode_pod,
    decode_template,
)
from model_training.executors.kubernetes.observation import (
    Seen,
    look,
    stop_words,
    stopped_unseen,
)
from model_training.executors.kubernetes.readiness import Readiness
from model_training.executors.kubernetes.reflector import Reflector
from model_training.executors.kubernetes.removal import (
    delete_everything,
    delete_job,
    refusal,
)
from model_training.folders import DataFolder
from model_training.jobs import JobSpec, JobState, JSONObject, Observation, Resources
from model_training.logs.segments import LOG_LIMIT
from model_training.names import JOB_PREFIX, is_job_name

logger = logging.getLogger(__name__)

SYNC_S: Final = 5.0  # seconds that a caller waits for the first list of what there is
LOG_WAIT_S: Final = 10.0  # seconds that an end waits for its log (design: answered only whole)
FINISHED_S: Final = 3600.0  # seconds that a finished Job stays in the cluster
TIDY_S: Final = 60.0  # seconds between two looks for finished Jobs to remove
RETRY_S: Final = 1.0

_versions = itertools.count(time.monotonic_ns())


class KubernetesExecutor:
    """Runs training jobs as Jobs in one namespace."""

    def __init__(
        self,
        api: KubernetesApi,
        data: DataFolder,
        site: Site,
        *,
        all_namespaces: bool = False,
        log_limit: int = LOG_LIMIT,
        finished_s: float = FINISHED_S,
    ) -> None:
        """Say what there is to work with; nothing happens yet.

        Args:
            api: of the cluster; entered and left here.
            data: the service's folder; one executor at a time works on it.
            site: what all Jobs have in common.
            all_namespaces: also follow the Jobs of other namespaces.
            log_limit: bytes kept of one attempt's log.
            finished_s: seconds that a finished Job stays in the cluster once its log is whole.
        """
        self._api = api
        self._data = data
        self._site = site
        self._outputs = site.outputs_folder
        self._finished_s = finished_s
        self._jobs: dict[str, Job] = {}
        self._dirty: set[str] = set()
        self._gone: dict[str, Observation] = {}
        self._news = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._collector = Collector(api, data, log_limit=log_limit, done=self._touch)
        everywhere = None if all_namespaces else site.namespace
        self._job_rows = Reflector(
            api, paths.jobs(everywhere), decode_job, keep=_is_kept_job, changed=self._job_changed
        )
        self._pod_rows = Reflector(
            api,
            paths.pods(everywhere),
            decode_pod,
            params={"labelSelector": "batch.kubernetes.io/job-name"},
            keep=_is_kept_pod,
            changed=self._pod_changed,
        )
        self._templates = Reflector(
            api,
            paths.templates(site.namespace),
            decode_template,
            changed=lambda _before, _after: None,
        )
        self._explainer = Explainer(api, self._touch)
        self._readiness = Readiness(api, site.namespace, all_namespaces=all_namespaces)

    @property
    def name(self) -> str:
        """``kubernetes``."""
        return "kubernetes"

    @property
    def is_ready(self) -> bool:
        """Whether it has all rights, and the PodTemplates, which jobs are launched with."""
        return self._readiness.is_ready and self._templates.synced.is_set()

    async def __aenter__(self) -> Self:
        """Begin to follow the cluster, whether it answers or not."""
        try:
            stopping = await asyncio.to_thread(self._prepare)
        except OSError as error:
            msg = f"The data folder {self._data.root} cannot be used: {error}"
            raise ExecutorUnavailable(msg) from error
        await self._api.__aenter__()
        await self._collector.__aenter__()
        for reflector in (self._job_rows, self._pod_rows, self._templates):
            self._start(reflector.run())
        self._start(self._explainer.run())
        self._start(self._readiness.run())
        self._start(self._tidy())
        self._start(self._collect_all())
        for spec in stopping:
            self._jobs[spec.name] = Job(spec.name, spec=spec, stop_asked=True)
            self._start(self._pursue_stop(spec.name))
        return self

    def _prepare(self) -> list[JobSpec]:
        for folder in (self._data.jobs, self._data.open_jobs, self._data.new_jobs):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return list(stops.read_stops(self._data))

    async def __aexit__(self, *exc_info: object) -> None:
        """Leave; jobs run on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._collector.__aexit__(*exc_info)
        await self._api.__aexit__(*exc_info)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            logger.error("a duty of the executor failed", exc_info=error)

    def cannot_enforce(self, resources: Resources) -> Mapping[str, str]:
        """Nothing: a cluster enforces all of it."""
        del resources
        return {}

    def outputs(self, name: str) -> Path | None:
        """The job's folder of the claim, where that is mounted for this service."""
        return self._outputs / name if self._outputs else None

    @property
    def pipelines(self) -> Collection[str]:
        """Pipelines that have a PodTemplate."""
        names = (name for _, name in self._templates.rows)
        return {name.removeprefix(JOB_PREFIX) for name in names if name.startswith(JOB_PREFIX)}

    # Launching

    async def plan(self, spec: JobSpec) -> JSONObject:
        """The Job that would be created, after the cluster has judged it."""
        await self._within(self._templates.synced)
        manifest = self._manifest(spec)
        await self._create(manifest, dry_run=True)
        return {"executor": self.name, "manifest": manifest}

    async def launch(self, spec: JobSpec) -> Observation:
        """Create the Job: see ``Executor.launch``."""
        if not is_job_name(spec.name):
            msg = f"{spec.name!r} cannot be the name of a job."
            raise JobRejected(msg)
        await self._within(self._templates.synced)
        raw = await self._create(self._manifest(spec))
        if raw is None:
            raw = await self._call(self._api.get(paths.job(self._site.namespace, spec.name)))
        reached("launch.created")
        row = decode_job(raw)
        self._job_rows.put(row)
        job = self._job(spec.name)
        job.take(row)
        seen = self._look(job) or job.told or Seen(state=JobState.PENDING)
        return self._tell(job, seen)

    def _manifest(self, spec: JobSpec) -> JSONObject:
        row = self._templates.rows.get((self._site.namespace, f"{JOB_PREFIX}{spec.pipeline}"))
        template = msgspec.json.decode(row.template) if row else None
        return job_manifest(spec, self._site, template)

    async def _create(self, manifest: JSONObject, *, dry_run: bool = False) -> bytes | None:
        """What the API server made of it; None if there is one of this name."""
        params = {"dryRun": "All"} if dry_run else {}
        body = msgspec.json.encode(manifest)
        try:
            return await self._api.post(paths.jobs(self._site.namespace), body, params)
        except ApiError as error:
            if error.reason == "AlreadyExists":
                return None
            raise refusal(error, self._site.namespace) from error

    async def _call(self, call: Coroutine[Any, Any, bytes]) -> bytes:
        try:
            return await call
        except ApiError as error:
            msg = f"Kubernetes answered {error.status} {error.reason}: {error.message}"
            raise ExecutorUnavailable(msg) from error

    # What changes in the cluster

    def _job(self, name: str) -> Job:
        job = self._jobs.get(name)
        if job is None:
            job = self._jobs[name] = Job(name)
        return job

    def _job_changed(self, before: JobRow | None, after: JobRow | None) -> None:
        name = (after or before).name  # pyright: ignore[reportOptionalMemberAccess] - one is there
        job = self._job(name)
        if after is None:
            if job.row is not None and before is not None and job.row.uid == before.uid:
                job.row = None
        elif self._is_shown(job, after):
            job.take(after)
            self._collect(job)
        self._touch(name)

    def _is_shown(self, job: Job, row: JobRow) -> bool:
        """Of two Jobs with one name in two namespaces the older one."""
        if job.row is None or job.row.namespace == row.namespace:
            return True
        both = sorted((job.row, row), key=lambda each: (each.created, each.namespace))
        logger.warning(
            "two Jobs are named %s: the one in %s is shown, that in %s is not",
            *(row.name, both[0].namespace, both[1].namespace),
        )
        return both[0] is row

    def _pod_changed(self, before: PodRow | None, after: PodRow | None) -> None:
        pod = after or before
        assert pod is not None  # noqa: S101 - one of both is there
        job = self._job(pod.job)
        job.pods[pod.uid] = pod
        if after is None:
            job.live.discard(pod.uid)
        else:
            job.live.add(pod.uid)
        self._collect(job)
        self._touch(job.name)

    def _collect(self, job: Job) -> None:
        """Let the output of its pods be copied, once all of them are known."""
        if self._pod_rows.synced.is_set() and job.spec is not None and not job.is_removing:
            self._collector.look(job.name, [pod for pod in job.attempts if pod.uid in job.live])

    async def _collect_all(self) -> None:
        await self._until_synced()
        for job in self._jobs.values():
            self._collect(job)

    def _touch(self, name: str) -> None:
        """Look at the job anew."""
        if job := self._jobs.get(name):
            job.changed.set()
        self._dirty.add(name)
        self._news.set()

    # Observing

    async def observe(self, *, everything: bool = False) -> AsyncGenerator[Snapshot | Change]:
        """What there is, then what changes: see ``Executor.observe``."""
        del everything  # whatever the cluster knows is told each time
        await self._until_synced()
        self._dirty.clear()
        yield Snapshot(self._all())
        while True:
            await self._news.wait()
            self._news.clear()
            names, self._dirty = self._dirty, set()
            gone, self._gone = self._gone, {}
            seen = [self._observe(name) for name in names if name in self._jobs]
            batch = (*gone.values(), *(each for each in seen if each))
            if batch:
                yield Change(batch)

    async def _until_synced(self) -> None:
        for reflector in (self._job_rows, self._pod_rows):
            await reflector.synced.wait()

    def _all(self) -> Iterator[Observation]:
        for job in sorted(self._jobs.values(), key=_age):
            if self._jobs.get(job.name) is not job:
                continue  # it went while others were recorded
            job.told = None if not job.has_ended else job.told
            if observation := self._observe(job.name) or self._again(job):
                yield observation

    def _again(self, job: Job) -> Observation | None:
        return self._tell(job, job.told) if job.told and job.spec else None

    def _observe(self, name: str) -> Observation | None:
        """What is new about the job."""
        job = self._jobs[name]
        if job.is_removing or job.has_ended or job.spec is None:
            self._drop_if_over(job)
            return None
        if job.row is None and not job.stop_asked:
            return self._removed_outside(job)
        seen = self._look(job)
        if seen is None or seen == job.told:
            return None
        return self._tell(job, seen)

    def _look(self, job: Job) -> Seen | None:
        if job.row is not None:
            seen = look(job.case(self._attempt(job)))
        else:
            seen = self._look_after_stop(job)
        if seen is not None and seen.state.is_terminal and not self._log_is_whole(job):
            return _held_back(seen, stop_asked=job.stop_asked)
        if seen is not None:
            self._explainer.note(job, seen)
        return seen

    def _look_after_stop(self, job: Job) -> Seen:
        """The Job has gone because we stopped it: its last pod tells how it ended."""
        if job.live:
            return Seen(state=JobState.STOPPING)
        ended = [pod for pod in job.attempts if pod.training and pod.training.state.terminated]
        end = ended[-1].training.state.terminated if ended and ended[-1].training else None
        if end is None:
            return stopped_unseen(job.told)
        return Seen(
            state=JobState.STOPPED,
            message=stop_words(end),
            attempt=self._attempt(job),
            started=end.startedAt,
            finished=end.finishedAt,
            exit_code=end.exitCode,
        )

    def _attempt(self, job: Job) -> int:
        """The number of its latest attempt; the logs remember pods that are gone for long."""
        return max(1, len(job.attempts), self._collector.attempts(job.name))

    def _log_is_whole(self, job: Job) -> bool:
        """Whether the end may be told: its log is complete, or was waited for long enough."""
        if self._collector.is_complete(job.name):
            return True
        now = time.monotonic()
        if job.end_noticed is None:
            job.end_noticed = now
            asyncio.get_running_loop().call_later(LOG_WAIT_S, self._touch, job.name)
        return now - job.end_noticed >= LOG_WAIT_S

    def _tell(self, job: Job, seen: Seen) -> Observation:
        job.told = seen
        spec = job.spec or unknown_spec(job.name)
        return Observation(
            spec=spec,
            version=next(_versions),
            state=seen.state,
            reason=seen.reason,
            message=seen.message,
            attempt=seen.attempt,
            started_at=seen.started_at,
            finished_at=seen.finished_at,
            duration_s=seen.duration_s,
            exit_code=seen.exit_code,
            output=self._output_words(job.name),
        )

    def _removed_outside(self, job: Job) -> Observation:
        """Its Job is gone, and neither had it ended nor did we delete it."""
        self._drop(job)
        return self._tell_gone(job)

    def _tell_gone(self, job: Job) -> Observation:
        return Observation(
            spec=job.spec or unknown_spec(job.name),
            version=next(_versions),
            state=last_state(job),
            gone=True,
        )

    def _drop_if_over(self, job: Job) -> None:
        """Hold no longer what has ended, is recorded, and has left the cluster."""
        if job.is_settled and job.has_ended and not job.is_there and not job.is_removing:
            self._drop(job)

    def _drop(self, job: Job) -> None:
        self._jobs.pop(job.name, None)
        self._explainer.forget(job.name)
        self._start(self._collector.forget(job.name))

    async def settle(self, names: Iterable[str]) -> None:
        """The ends of these jobs are recorded: see ``Executor.settle``."""
        for name in names:
            job = self._jobs.get(name)
            if job is None or not job.has_ended:
                continue
            job.is_settled = True
            if job.stop_asked:
                await asyncio.to_thread(stops.forget_stop, self._data, name)
            self._drop_if_over(job)

    # Stopping

    async def stop(self, name: str) -> None:
        """Delete the Job, with its own grace, and keep its record: see ``Executor.stop``."""
        job = await self._known(name)
        if job is None or job.spec is None or job.has_ended or job.stop_asked or job.row is None:
            return
        job.stop_asked = True  # before anything is awaited: many may ask at once
        try:
            await asyncio.to_thread(stops.write_stop, self._data, job.spec)
        except OSError as error:
            job.stop_asked = False
            msg = f"{name} cannot be stopped now: {error.strerror}"
            raise ExecutorUnavailable(msg) from error
        reached("stop.marked")
        self._touch(name)
        self._start(self._pursue_stop(name))

    async def _pursue_stop(self, name: str) -> None:
        await self._until_synced()
        job = self._jobs.get(name)
        while job is not None and job.row is not None and not job.has_ended:
            try:
                await delete_job(self._api, job.row)
            except (ExecutorUnavailable, JobRejected) as error:
                logger.warning("%s is not stopped yet: %s; trying again", name, error.message)
                await asyncio.sleep(RETRY_S)
            else:
                return
        self._touch(name)

    async def _known(self, name: str) -> Job | None:
        for reflector in (self._job_rows, self._pod_rows):
            await self._within(reflector.synced)
        return self._jobs.get(name)

    @staticmethod
    async def _within(synced: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(SYNC_S):
                await synced.wait()
        except TimeoutError:
            msg = "The cluster has not told yet what there is; try again."
            raise ExecutorUnavailable(msg) from None

    # Removing

    async def remove(self, name: str) -> None:
        """Delete the Job and everything of it: see ``Executor.remove``."""
        await self._known(name)
        job = self._job(name)
        if not job.is_removing:
            job.is_removing = True
            self._start(self._remove(job))

    async def _remove(self, job: Job) -> None:
        while True:
            try:
                await delete_everything(self._api, job, self._namespace_of(job))
                break
            except (ExecutorUnavailable, JobRejected) as error:
                logger.warning("%s is not removed yet: %s; trying again", job.name, error.message)
                await asyncio.sleep(RETRY_S)
        reached("remove.deleted")
        await self._collector.forget(job.name)
        await asyncio.to_thread(self._remove_files, job.name)
        self._jobs.pop(job.name, None)
        self._explainer.forget(job.name)
        self._gone[job.name] = self._tell_gone(job)
        self._news.set()

    def _namespace_of(self, job: Job) -> str:
        return job.row.namespace if job.row else self._site.namespace

    def _remove_files(self, name: str) -> None:
        stops.forget_stop(self._data, name)
        trees.remove(self._data.job(name).path)
        if self._outputs is not None:
            trees.remove(self._outputs / name)

    # Finished Jobs

    async def _tidy(self) -> None:
        """Let the cluster forget Jobs of ours that ended long ago; the ledger remembers them."""
        while True:
            await asyncio.sleep(TIDY_S)
            for job in [each for each in self._jobs.values() if self._is_over(each)]:
                if job.row is not None:
                    try:
                        await delete_job(self._api, job.row, "Background")
                    except (ExecutorUnavailable, JobRejected) as error:
                        logger.warning("%s stays in the cluster: %s", job.name, error.message)

    def _is_over(self, job: Job) -> bool:
        row, told = job.row, job.told
        if row is None or told is None or row.spec is None or row.deleted:
            return False
        end = told.finished_at
        if not (row.has_ended and job.is_settled) or job.is_removing or end is None:
            return False
        age = (datetime.now(UTC) - end).total_seconds()
        return age > self._finished_s and self._collector.is_complete(job.name)

    def _output_words(self, name: str) -> str:
        if self._site.outputs_claim:
            return f"the folder {name} of the claim {self._site.outputs_claim}"
        return "its pod, and gone with it: the service has no claim for outputs"


def _age(job: Job) -> datetime:
    return job.spec.created_at if job.spec else datetime.max.replace(tzinfo=UTC)


def _is_kept_job(row: JobRow) -> bool:
    return is_job_name(row.name)


def _is_kept_pod(row: PodRow) -> bool:
    return is_job_name(row.job)


def _held_back(seen: Seen, *, stop_asked: bool) -> Seen | None:
    """What is told of a job that has ended while its log is still being copied."""
    if stop_asked or seen.started is not None:
        state = JobState.STOPPING if stop_asked else JobState.RUNNING
        return Seen(state=state, attempt=seen.attempt, started=seen.started)
    return None
