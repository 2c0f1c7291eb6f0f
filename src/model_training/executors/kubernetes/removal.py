"""Removing a job from the cluster until nothing of it is left, pods included."""

import logging
import re
from typing import Final, NamedTuple

import msgspec

from model_training.errors import ExecutorUnavailable, JobRejected
from model_training.executors.kubernetes import paths
from model_training.executors.kubernetes.api import ApiError, KubernetesApi
from model_training.executors.kubernetes.jobs import LOOK_S, Job
from model_training.executors.kubernetes.objects import JobRow, decode_job

logger = logging.getLogger(__name__)

# What every authorizer's no becomes; a policy's own words come after its name instead.
_LACKS_RIGHT: Final = re.compile(r'^[\w./-]+(?: "[^"]*")? is forbidden: User "[^"]*" cannot \w+ ')


async def delete_job(api: KubernetesApi, row: JobRow, propagation: str = "Foreground") -> None:
    """Ask for this very Job to be deleted with its pods; one that is not there is no error.

    Raises:
        ExecutorUnavailable: it could not be asked for; try again.
    """
    body = msgspec.json.encode(
        {"propagationPolicy": propagation, "preconditions": {"uid": row.uid}}
    )
    try:
        await api.delete(paths.job(row.namespace, row.name), body)
    except ApiError as error:
        if error.status not in {404, 409}:  # gone, or another Job has its name by now
            raise refusal(error, row.namespace) from error


async def find_job(api: KubernetesApi, name: str, namespace: str) -> JobRow | None:
    """The Job of this name, whether a watch has told of it or not.

    Raises:
        ExecutorUnavailable: it could not be asked for; try again.
    """
    try:
        return decode_job(await api.get(paths.job(namespace, name)))
    except ApiError as error:
        if error.status == 404:
            return None
        raise refusal(error, namespace) from error


async def delete_everything(api: KubernetesApi, job: Job, namespace: str) -> None:
    """Delete the Job and its pods; returns once the cluster has nothing of it.

    Raises:
        ExecutorUnavailable: nobody knows how far it got; begin again.
    """
    if job.row is not None:
        uid = job.uid
        await delete_job(api, job.row)
        while job.uid == uid:
            await job.next_change(LOOK_S)
    if job.uid is not None:
        return  # a namesake has come, and the pods are its own
    # Pods that a Job left behind: deleted without them, as the API server does unless told.
    for pod in await pods_of(api, job.name, namespace):
        if job.owns(pod.owner):
            await _delete_pod(api, namespace, pod)
    while job.has_pods:
        await job.next_change(LOOK_S)


class PodName(NamedTuple):
    """A pod that has the label of a job."""

    name: str
    uid: str
    owner: str
    """UID of the Job that made it; empty if none did, or it was told to let go of it"""


async def pods_of(api: KubernetesApi, name: str, namespace: str) -> list[PodName]:
    """The pods that the cluster has now with the label of the job.

    Raises:
        ExecutorUnavailable: it could not be asked for; try again.
    """
    params = {"labelSelector": f"batch.kubernetes.io/job-name={name}"}
    try:
        raw = await api.get(paths.pods(namespace), params)
    except ApiError as error:
        raise refusal(error, namespace) from error
    try:
        pods = [item.metadata for item in msgspec.json.decode(raw, type=_List).items]
    except msgspec.DecodeError as error:
        raise ExecutorUnavailable(f"The pods of {name} cannot be told: {error}.") from error
    return [PodName(pod.name, pod.uid, pod.owner) for pod in pods]


class _Owner(msgspec.Struct, gc=False):
    kind: str
    uid: str


class _Meta(msgspec.Struct, gc=False):
    name: str
    uid: str
    ownerReferences: tuple[_Owner, ...] = ()  # noqa: N815 - the API's own name

    @property
    def owner(self) -> str:
        return next((each.uid for each in self.ownerReferences if each.kind == "Job"), "")


class _Item(msgspec.Struct, gc=False):
    metadata: _Meta


class _List(msgspec.Struct, gc=False):
    items: list[_Item]


async def _delete_pod(api: KubernetesApi, namespace: str, pod: PodName) -> None:
    body = msgspec.json.encode({"preconditions": {"uid": pod.uid}})
    try:
        await api.delete(paths.pod(namespace, pod.name), body)
    except ApiError as error:
        if error.status not in {404, 409}:  # gone, or another pod has its name by now
            raise refusal(error, namespace) from error


def refusal(error: ApiError, namespace: str) -> ExecutorUnavailable | JobRejected:
    """What Kubernetes refused, as an error for people.

    A missing right is somebody else's to give, and then the same request works; what a quota,
    a rule of admission or the validation of a PodTemplate says is about this job.
    """
    if error.status == 403 and _LACKS_RIGHT.search(error.message):
        return ExecutorUnavailable(
            f"The service lacks a right in the namespace {namespace}: {error.message}. "
            "Whoever runs it finds all that are missing with model-training doctor."
        )
    if error.status in {400, 403, 413, 422}:  # 409: many at once wrote down what a quota leaves
        return JobRejected(f"Kubernetes refuses this job: {error.message}")
    return ExecutorUnavailable(f"Kubernetes answered {error.status}: {error.message}")
