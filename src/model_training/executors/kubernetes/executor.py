"""The executor of a cluster: a training job is one Job, and the cluster is the queue.

Two reflectors keep what the API server has of Jobs and Pods under the reserved prefix; what they
change is looked at anew and told. Nothing here is a second scheduler: we create Jobs, delete them,
and tell what became of them.
"""

import asyncio
import logging
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
)
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from model_training import trees
from model_training.crash_points import reached
from model_training.errors import ExecutorUnavailable, JobRejected
from model_training.executors.base import Change, Snapshot
from model_training.executors.kubernetes import paths, stops
from model_training.executors.kubernetes.api import ApiError, KubernetesApi, Unanswered
from model_training.executors.kubernetes.collector import Collector
from model_training.executors.kubernetes.explaining import Explainer
from model_training.executors.kubernetes.inventory import Inventory
from model_training.executors.kubernetes.jobs import LOOK_S, Job
from model_training.executors.kubernetes.manifest import Site, job_manifest
from model_training.executors.kubernetes.objects import decode_job
from model_training.executors.kubernetes.observation import Seen
from model_training.executors.kubernetes.readiness import Readiness
from model_training.executors.kubernetes.removal import (
    delete_everything,
    delete_job,
    find_job,
    pods_of,
    refusal,
)
from model_training.executors.kubernetes.reporter import Reporter
from model_training.folders import DataFolder
from model_training.jobs import JobSpec, JobState, JSONObject, Observation, Resources
from model_training.logs.segments import LOG_LIMIT
from model_training.names import is_job_name

logger: Final = logging.getLogger(__name__)

FINISHED_S: Final = 3600.0  # seconds that a finished Job stays in the cluster
TIDY_S: Final = 60.0  # seconds between two looks for finished Jobs to remove
RETRY_S: Final = 1.0
PACE_S: Final = 0.02  # seconds between two batches of changes: one record of many costs like one


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
        self._finished_s = finished_s
        self._gone: dict[str, Observation] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._inventory = Inventory(
            api, site.namespace, all_namespaces=all_namespaces, changed=self._collect
        )
        touch = self._inventory.touch
        self._collector = Collector(api, data, log_limit=log_limit, done=touch)
        self._explainer = Explainer(api, touch)
        self._reporter = Reporter(
            self._inventory, self._collector, self._explainer, outputs_claim=site.outputs_claim
        )
        self._readiness = Readiness(api, site.namespace, all_namespaces=all_namespaces)

    @property
    def name(self) -> str:
        """``kubernetes``."""
        return "kubernetes"

    @property
    def is_ready(self) -> bool:
        """Whether it has all rights, and the PodTemplates, which jobs are launched with."""
        return self._readiness.is_ready and self._inventory.has_templates

    async def __aenter__(self) -> Self:
        """Begin to follow the cluster, whether it answers or not."""
        try:
            stopping = await asyncio.to_thread(self._prepare)
        except OSError as error:
            msg = f"The data folder {self._data.root} cannot be used: {error}"
            raise ExecutorUnavailable(msg) from error
        await self._api.__aenter__()
        await self._collector.__aenter__()
        for duty in (*self._inventory.duties, self._explainer.run, self._readiness.run, self._tidy):
            self._start(self._keep(duty))
        for stop in stopping:
            name, told = stop.spec.name, Seen(state=JobState.STOPPING, started=stop.started)
            job = Job(name, noted=stop, stop_asked=True, told=told, went_unseen=True)
            self._inventory.jobs[name] = job
            self._start(self._pursue_stop(name))
        return self

    def _prepare(self) -> list[stops.Stop]:
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

    @staticmethod
    async def _keep(duty: Callable[[], Awaitable[None]]) -> None:
        """Do it for ever, whatever is wrong with one turn of it."""
        while True:
            try:
                await duty()
            except Exception:  # a service whose duties ended would be blind, and not know
                logger.exception("a duty of the executor failed; it begins again")
            await asyncio.sleep(RETRY_S)

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
        return self._site.outputs_folder / name if self._site.outputs_folder else None

    @property
    def pipelines(self) -> Collection[str]:
        """Pipelines that have a PodTemplate."""
        return self._inventory.pipelines

    # Launching

    async def plan(self, spec: JobSpec) -> JSONObject:
        """The Job that would be created, after the cluster has judged it."""
        manifest = await self._manifest(spec)
        await self._create(manifest, dry_run=True)
        return {"executor": self.name, "manifest": manifest}

    async def launch(self, spec: JobSpec) -> Observation:
        """Create the Job: see ``Executor.launch``."""
        if not is_job_name(spec.name):
            msg = f"{spec.name!r} cannot be the name of a job."
            raise JobRejected(msg)
        manifest = await self._manifest(spec)
        job = self._inventory.job(spec.name)
        if job.is_removing:
            msg = f"{spec.name} is being removed; its name is free once that is done."
            raise ExecutorUnavailable(msg)
        job.launches += 1  # a removal waits for it
        try:
            await self._launch(job, manifest)
        finally:
            job.launches -= 1
            job.touch()
            if not (job.is_known or job.is_there or job.is_removing or job.launches):
                self._inventory.jobs.pop(spec.name, None)
        return self._reporter.now(job)

    async def _launch(self, job: Job, manifest: JSONObject) -> None:
        try:
            raw = await self._create(manifest)
        except ExecutorUnavailable as error:
            if _may_be_done(error):
                # Its caller hears that it was not, and will ask again, perhaps for another job.
                self._begin_removal(job)
            raise
        if raw is None:
            raw = await self._get(job.name)
        reached("launch.created")
        row = decode_job(raw)
        if row.deleted:
            msg = f"A Job named {job.name} is being deleted; its name is free once that is done."
            raise ExecutorUnavailable(msg)
        self._inventory.put(row)
        if job.last_row is None:  # a watch has told of its end before we heard of its beginning
            job.take(row)

    async def _manifest(self, spec: JobSpec) -> JSONObject:
        return job_manifest(spec, self._site, await self._inventory.template(spec.pipeline))

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

    async def _get(self, name: str) -> bytes:
        try:
            return await self._api.get(paths.job(self._site.namespace, name))
        except ApiError as error:
            msg = f"Kubernetes answered {error.status} {error.reason}: {error.message}"
            raise ExecutorUnavailable(msg) from error

    # Observing

    async def observe(self, *, everything: bool = False) -> AsyncGenerator[Snapshot | Change]:
        """What there is, then what changes: see ``Executor.observe``."""
        del everything  # whatever the cluster knows is told each time
        await self._inventory.synced()
        for job in self._inventory.jobs.values():
            self._copy_output(job)
        await self._collector.read_all()  # an end whose log is whole is told at once
        self._inventory.forget_changes()
        yield Snapshot(self._all())
        gone, self._gone = self._gone, {}  # others may come while these are recorded
        if gone:
            yield Change(tuple(gone.values()))
        while True:
            names = await self._inventory.changes()
            batch = tuple(each for name in names if (each := self._news_of(name)))
            if batch:
                yield Change(batch)
            await asyncio.sleep(PACE_S)

    def _all(self) -> Iterator[Observation]:
        for job in sorted(self._inventory.jobs.values(), key=_age):
            if self._inventory.jobs.get(job.name) is not job:
                continue  # it went while others were recorded
            if observation := self._news_of(job.name) or self._reporter.again(job):
                yield observation

    def _news_of(self, name: str) -> Observation | None:
        if gone := self._gone.pop(name, None):
            if name in self._inventory.jobs:  # somebody has made another of this name
                self._inventory.touch(name)
            return gone
        job = self._inventory.jobs.get(name)
        if job is None:
            return None
        if job.is_removing or job.has_ended or not job.is_known:
            self._drop_if_over(job)
            return None
        try:
            news = self._reporter.news_of(job)
        except Exception:  # whatever is wrong with one job, the others are told
            logger.exception("%s cannot be looked at", name)
            return None
        if news is not None and news.gone:
            self._drop(job)
        return news

    def _collect(self, job: Job) -> None:
        """Something of it has changed: let the output of its pods be copied."""
        begins = not job.pods and job.row is not None and not job.row.has_ended
        if not begins and self._inventory.knows_pods:
            self._copy_output(job)

    def _copy_output(self, job: Job) -> None:
        """All pods are known: those that are not there now are gone."""
        if not job.is_known or job.is_removing:
            return
        if job.lacks_pods and not job.is_searched:
            job.is_searched = True
            self._start(self._search(job))
        pods = [pod for pod in job.attempts if pod.uid in job.live]
        self._collector.look(job.name, pods, went_unseen=self._went_unseen(job))

    def _went_unseen(self, job: Job) -> bool:
        """Whether its log is to say that something may be missing."""
        if not job.went_unseen or job.has_ended:
            return False
        if not job.attempts and self._inventory.lags_in_pods:
            self._inventory.doubt(job)
            return False
        return True

    async def _search(self, job: Job) -> None:
        """Its Job tells of pods that have ended, and we know none: they are gone, or told late."""
        await self._collector.read_all()
        while self._is_puzzling(job):
            try:
                found = await pods_of(self._api, job.name, self._namespace_of(job))
            except (ExecutorUnavailable, JobRejected) as error:
                logger.debug("the pods of %s are not known yet: %s", job.name, error.message)
                await asyncio.sleep(RETRY_S)
                continue
            if not any(job.owns(pod.owner) for pod in found):
                job.went_unseen = True
                break
            await job.next_change(LOOK_S)
        self._copy_output(job)
        self._inventory.touch(job.name)

    def _is_puzzling(self, job: Job) -> bool:
        is_held = self._inventory.jobs.get(job.name) is job and not job.is_removing
        return is_held and job.lacks_pods and not self._collector.attempts(job.name)

    def _drop_if_over(self, job: Job) -> None:
        """Hold no longer what has ended, is recorded, and has left the cluster."""
        if job.is_there or job.is_removing or job.launches:
            return
        if not job.is_known or (job.is_settled and job.has_ended):
            self._drop(job)

    def _drop(self, job: Job) -> None:
        self._inventory.jobs.pop(job.name, None)
        self._explainer.forget(job.name)
        self._start(self._collector.forget(job.name))

    async def write_off(self, names: Iterable[str]) -> list[str]:
        """These jobs vanished: see ``Executor.write_off``."""
        vanished = [name for name in names if not self._holds(name)]
        await self._collector.write_off(vanished)
        return vanished

    def _holds(self, name: str) -> bool:
        """Whether there is, or will be, something to tell of it; pods alone tell nothing."""
        job = self._inventory.jobs.get(name)
        return job is not None and (job.is_known or job.is_removing)

    async def settle(self, names: Iterable[str]) -> None:
        """The ends of these jobs are recorded: see ``Executor.settle``."""
        for name in names:
            job = self._inventory.jobs.get(name)
            if job is None or not job.has_ended:
                continue
            job.is_settled = True
            if job.stop_asked:
                await self._forget_stop(name)
            self._drop_if_over(job)

    async def _forget_stop(self, name: str) -> None:
        try:
            await asyncio.to_thread(stops.forget_stop, self._data, name)
        except OSError as error:
            # At the next start it is pursued once more, finds no Job, and is told as it was.
            logger.warning("The note of the stop of %s cannot be removed: %s", name, error)

    # Stopping

    async def stop(self, name: str) -> None:
        """Delete the Job, with its own grace, and keep its record: see ``Executor.stop``."""
        await self._inventory.synced_soon()
        job = self._inventory.jobs.get(name)
        if job is None or job.row is None or job.has_ended or job.stop_asked:
            return
        if (spec := job.spec) is None:
            return
        job.stop_asked = True  # before anything is awaited: many may ask at once
        try:
            started = job.told.started if job.told else None
            stop = stops.Stop(spec, job.row.uid, started)
            await asyncio.to_thread(stops.write_stop, self._data, stop)
        except OSError as error:
            job.stop_asked = False
            msg = f"{name} cannot be stopped now: {error.strerror}"
            raise ExecutorUnavailable(msg) from error
        reached("stop.marked")
        self._inventory.touch(name)
        self._start(self._pursue_stop(name))

    async def _pursue_stop(self, name: str) -> None:
        await self._inventory.synced()
        job = self._inventory.jobs.get(name)
        while job is not None and job.stop_asked and job.row is not None and not job.has_ended:
            try:
                await delete_job(self._api, job.row)
            except (ExecutorUnavailable, JobRejected) as error:
                logger.warning("%s is not stopped yet: %s; trying again", name, error.message)
                await asyncio.sleep(RETRY_S)
            else:
                return
        self._inventory.touch(name)

    # Removing

    async def remove(self, name: str) -> None:
        """Delete the Job and everything of it: see ``Executor.remove``."""
        await self._inventory.synced_soon()
        self._begin_removal(self._inventory.job(name))

    def _begin_removal(self, job: Job) -> None:
        if not job.is_removing:
            job.is_removing = True
            self._start(self._remove(job))

    async def _remove(self, job: Job) -> None:
        while True:
            try:
                namespace = self._namespace_of(job)
                await job.launched()
                if job.row is None and (row := await find_job(self._api, job.name, namespace)):
                    self._inventory.put(row)  # its creation was in doubt: see _launch
                await delete_everything(self._api, job, namespace)
                reached("remove.deleted")
                await self._collector.forget(job.name)
                await asyncio.to_thread(self._remove_files, job.name)
                break
            except (ExecutorUnavailable, JobRejected, OSError) as error:
                logger.warning("%s is not removed yet: %s; trying again", job.name, error)
                await asyncio.sleep(RETRY_S)
        self._inventory.jobs.pop(job.name, None)
        self._explainer.forget(job.name)
        self._gone[job.name] = self._reporter.gone(job)
        if job.row is not None:  # of a namesake that came meanwhile
            self._inventory.job(job.name).take(job.row)
        self._inventory.touch(job.name)

    def _namespace_of(self, job: Job) -> str:
        return job.last_row.namespace if job.last_row else self._site.namespace

    def _remove_files(self, name: str) -> None:
        stops.forget_stop(self._data, name)
        trees.remove(self._data.job(name).path)
        if (outputs := self.outputs(name)) is not None:
            trees.remove(outputs)

    # Finished Jobs

    async def _tidy(self) -> None:
        """Let the cluster forget Jobs of ours that ended long ago; the ledger remembers them."""
        while True:
            await asyncio.sleep(TIDY_S)
            for job in [each for each in self._inventory.jobs.values() if self._is_over(each)]:
                if job.row is not None:
                    try:
                        await delete_job(self._api, job.row, "Background")
                    except (ExecutorUnavailable, JobRejected) as error:
                        logger.warning("%s stays in the cluster: %s", job.name, error.message)

    def _is_over(self, job: Job) -> bool:
        row, told = job.row, job.told
        if row is None or told is None or row.spec is None or row.deleted:
            return False
        if row.namespace != self._site.namespace:
            return False  # another service's, which tidies for itself
        end = told.finished_at
        if not (row.has_ended and job.is_settled) or job.is_removing or end is None:
            return False
        age = (datetime.now(UTC) - end).total_seconds()
        return age > self._finished_s and self._collector.is_complete(job.name)


def _may_be_done(error: ExecutorUnavailable) -> bool:
    """Whether a call that failed may have had its effect."""
    why = error.__cause__
    return isinstance(why, Unanswered) or (isinstance(why, ApiError) and why.status >= 500)


def _age(job: Job) -> datetime:
    return job.created_at or datetime.max.replace(tzinfo=UTC)
