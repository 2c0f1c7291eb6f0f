"""What the cluster has of training jobs, kept in step: Jobs, their pods, and the PodTemplates.

Rows come from three reflectors; here they become jobs, with the pods that belong to them, and
whose names are noted once something of them has changed.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Final

import msgspec

from model_training.errors import ExecutorUnavailable
from model_training.executors.kubernetes import paths
from model_training.executors.kubernetes.api import KubernetesApi
from model_training.executors.kubernetes.jobs import Job
from model_training.executors.kubernetes.objects import (
    JobRow,
    PodRow,
    decode_job,
    decode_pod,
    decode_template,
)
from model_training.executors.kubernetes.reflector import Reflector
from model_training.executors.kubernetes.row_store import Listener
from model_training.jobs import JSONObject
from model_training.names import JOB_PREFIX, is_job_name

logger: Final = logging.getLogger(__name__)

SYNC_S: Final = 5.0  # seconds that a caller waits for the first list of what there is


class Inventory:
    """All jobs under the reserved prefix, by name, in ``jobs``."""

    def __init__(
        self,
        api: KubernetesApi,
        namespace: str,
        *,
        all_namespaces: bool,
        changed: Callable[[Job], None],
    ) -> None:
        """Say what to follow; nothing is asked before ``duties`` run.

        ``changed`` is called with each job of which the cluster tells something new.
        """
        self.jobs: dict[str, Job] = {}
        self._changed = changed
        self._namespace = namespace
        self._dirty: set[str] = set()
        self._doubtful: set[str] = set()
        self._news = asyncio.Event()
        everywhere = None if all_namespaces else namespace
        self._jobs = Reflector(
            api,
            paths.jobs(everywhere),
            decode_job,
            keep=lambda row: is_job_name(row.name),
            listener=Listener(self._job_changed, self._job_lost),
        )
        self._pods = Reflector(
            api,
            paths.pods(everywhere),
            decode_pod,
            params={"labelSelector": "batch.kubernetes.io/job-name"},
            keep=lambda row: is_job_name(row.job),
            listener=Listener(self._pod_changed, self._pod_lost, self._look_at_doubtful),
        )
        self._templates = Reflector(
            api,
            paths.templates(namespace),
            decode_template,
            listener=Listener(lambda _before, _after: None),
        )

    @property
    def duties(self) -> tuple[Callable[[], Awaitable[None]], ...]:
        """What has to run for it to be in step."""
        return self._jobs.run, self._pods.run, self._templates.run

    # What there is

    @property
    def has_templates(self) -> bool:
        """Whether the PodTemplates are known."""
        return self._templates.synced.is_set()

    @property
    def pipelines(self) -> Collection[str]:
        """Pipelines that have a PodTemplate."""
        names = (name for _, name in self._templates.rows if name.startswith(JOB_PREFIX))
        return {name.removeprefix(JOB_PREFIX) for name in names}

    async def template(self, pipeline: str | None) -> JSONObject | None:
        """What the pipeline's PodTemplate says of metadata and spec of its pods, if there is one.

        Raises:
            ExecutorUnavailable: the cluster has not told yet.
        """
        await _within(self._templates)
        row = self._templates.rows.get((self._namespace, f"{JOB_PREFIX}{pipeline}"))
        return msgspec.json.decode(row.template) if row else None

    async def synced(self) -> None:
        """Wait, for as long as it takes, until all jobs are known."""
        await self._jobs.synced.wait()
        await self._pods.synced.wait()

    async def synced_soon(self) -> None:
        """Wait until all jobs are known.

        Raises:
            ExecutorUnavailable: it takes too long.
        """
        await _within(self._jobs)
        await _within(self._pods)

    @property
    def knows_pods(self) -> bool:
        """Whether all pods are known: what is not there now is gone."""
        return self._pods.synced.is_set()

    @property
    def lags_in_pods(self) -> bool:
        """Whether there may be pods, or ends of pods, that we have not heard of."""
        return self._pods.stale_since is not None

    def job(self, name: str) -> Job:
        """The job of this name, made now if nothing is known of it."""
        job = self.jobs.get(name)
        if job is None:
            job = self.jobs[name] = Job(name)
        return job

    def put(self, row: JobRow) -> None:
        """Take over what a call of ours returned."""
        self._jobs.put(row)

    # What changes

    async def changes(self) -> set[str]:
        """Wait for the names of jobs of which something has changed."""
        await self._news.wait()
        self._news.clear()
        names, self._dirty = self._dirty, set()
        return names

    def forget_changes(self) -> None:
        """All jobs are about to be looked at."""
        self._dirty.clear()

    def touch(self, name: str) -> None:
        """Have the job looked at anew."""
        if job := self.jobs.get(name):
            job.touch()
        self._dirty.add(name)
        self._news.set()

    def _job_changed(self, before: JobRow | None, after: JobRow | None) -> None:
        row = after or before
        assert row is not None  # noqa: S101 - one of both is there
        job = self.job(row.name)
        if after is not None:
            if _is_shown(job, after):
                job.take(after)
        elif job.row is not None and job.row.uid == row.uid:
            # As it was last: an end may have come with the word that it is gone.
            job.take(row)
            job.row = None
        self._changed(job)
        self.touch(job.name)

    def _job_lost(self, row: JobRow) -> None:
        job = self.job(row.name)
        if not job.attempts:  # else its pods tell how they went
            job.went_unseen = True
        self._job_changed(row, None)

    def _pod_changed(self, before: PodRow | None, after: PodRow | None) -> None:
        pod = after or before
        assert pod is not None  # noqa: S101 - one of both is there
        job = self.job(pod.job)
        if after is None:
            job.lose(pod)
        else:
            job.see(pod)
        self._changed(job)
        self.touch(job.name)

    def _pod_lost(self, pod: PodRow) -> None:
        job = self.job(pod.job)
        job.lose(pod)
        job.went_unseen = True
        self._changed(job)
        self.touch(job.name)

    def doubt(self, job: Job) -> None:
        """Have the job looked at anew once all pods are known: one of it may be told of yet."""
        self._doubtful.add(job.name)

    def _look_at_doubtful(self) -> None:
        names, self._doubtful = self._doubtful, set()
        for name in names & self.jobs.keys():
            self._changed(self.jobs[name])
            self.touch(name)


def _is_shown(job: Job, row: JobRow) -> bool:
    """Of two Jobs with one name in two namespaces the older one."""
    if job.row is None or job.row.namespace == row.namespace:
        return True
    both = sorted((job.row, row), key=lambda each: (each.created, each.namespace))
    logger.warning(
        "two Jobs are named %s: the one in %s is shown, that in %s is not",
        *(row.name, both[0].namespace, both[1].namespace),
    )
    return both[0] is row


async def _within(reflector: Reflector[Any]) -> None:
    try:
        async with asyncio.timeout(SYNC_S):
            await reflector.synced.wait()
    except TimeoutError:
        msg = "The cluster has not told yet what there is; try again."
        raise ExecutorUnavailable(msg) from None
