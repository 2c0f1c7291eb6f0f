"""What we read of Kubernetes objects: a Job and a Pod, reduced to rows.

A Job is 6 KB of JSON, of which a third is bookkeeping of the API server (``managedFields``).
Only the fields named here are decoded, into structs that the garbage collector does not walk,
and only the rows are kept: a service follows fifty thousand of them. What many have in common, as
their namespace, is kept once.
"""

from datetime import datetime, timedelta
from sys import intern
from typing import Final

import msgspec
from msgspec import Struct, field

from model_training.executors.kubernetes.labels import (
    PARAMETERS_ANNOTATION,
    SPEC_ANNOTATION,
)
from model_training.jobs import parse_time

JOB_NAME_LABELS: Final = ("batch.kubernetes.io/job-name", "job-name")
"""set by the job controller on each pod; the second is the older name"""


class Condition(Struct, frozen=True, gc=False):
    """A condition that is not ``Unknown``."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    lastTransitionTime: str | None = None  # noqa: N815 - the API's own name


class JobRow(Struct, frozen=True, kw_only=True, gc=False):
    """A Job, as far as it matters here."""

    namespace: str
    name: str
    uid: str
    resource_version: str
    created: str
    """RFC 3339, whole seconds, as all times of Kubernetes"""
    deleted: str | None = None
    """when its deletion was asked for"""
    spec: str | None = None
    """our own record of what was wanted (JSON); None for a Job made by somebody else"""
    parameters: str | None = None
    """JSON"""
    image: str | None = None
    suspended: bool = False
    started: str | None = None
    had_pods: bool = False
    """pods of it have ended; those of a Job that another controller manages may be elsewhere"""
    conditions: tuple[Condition, ...] = ()

    def condition(self, kind: str) -> Condition | None:
        """The condition of this type, if it is true."""
        return _true_condition(self.conditions, kind)

    @property
    def has_ended(self) -> bool:
        """Whether Kubernetes will do no more for it."""
        return any(c.type in {"Complete", "Failed"} and c.status == "True" for c in self.conditions)


class Waiting(Struct, frozen=True, gc=False):
    """A container that has not started."""

    reason: str = ""
    message: str = ""


class Running(Struct, frozen=True, gc=False):
    """A container that runs."""

    startedAt: str | None = None  # noqa: N815 - the API's own name


class Terminated(Struct, frozen=True, gc=False):
    """A container that has ended."""

    exitCode: int  # noqa: N815 - the API's own name
    signal: int | None = None
    reason: str = ""
    message: str = ""
    startedAt: str | None = None  # noqa: N815 - the API's own name
    finishedAt: str | None = None  # noqa: N815 - the API's own name

    @property
    def never_started(self) -> bool:
        """Whether there was no process at all: then the kubelet gives the beginning of time."""
        return self.startedAt is not None and self.startedAt.startswith("1970-01-01")

    @property
    def started(self) -> str | None:
        """When its process started; None if it never did, or nobody knows."""
        return None if self.never_started else self.startedAt


class ContainerState(Struct, frozen=True, gc=False):
    """Exactly one is set, or none while nothing is known."""

    waiting: Waiting | None = None
    running: Running | None = None
    terminated: Terminated | None = None


class Container(Struct, frozen=True, gc=False):
    """One container of a pod."""

    name: str
    state: ContainerState = ContainerState()
    lastState: ContainerState = ContainerState()  # noqa: N815 - the API's own name
    restartCount: int = 0  # noqa: N815 - the API's own name
    containerID: str = ""  # noqa: N815 - the API's own name
    """of the latest instance that was created; empty if none ever was"""


class PodRow(Struct, frozen=True, kw_only=True, gc=False):
    """A Pod, as far as it matters here."""

    namespace: str
    name: str
    uid: str
    resource_version: str
    job: str
    """name of the Job it belongs to"""
    job_uid: str
    created: str
    deleted: str | None = None
    """when it may be killed, once its deletion was asked for"""
    grace_s: int = 0
    """seconds from there to that"""
    phase: str = ""
    reason: str = ""
    message: str = ""
    node: str | None = None
    conditions: tuple[Condition, ...] = ()
    init_containers: tuple[Container, ...] = ()
    containers: tuple[Container, ...] = ()
    main: str = ""
    """name of the container that trains: ours, else the default one, else the first"""
    sidecars: tuple[str, ...] = ()
    """names of the init containers that run on beside the others"""

    def condition(self, kind: str) -> Condition | None:
        """The condition of this type, if it is true."""
        return _true_condition(self.conditions, kind)

    @property
    def has_ended(self) -> bool:
        """Whether no container of it will run again."""
        return self.phase in {"Succeeded", "Failed"}

    @property
    def deletion_asked(self) -> datetime | None:
        """When its deletion was asked for, by the API server's clock; None if it was not."""
        if self.deleted is None:
            return None
        return parse_time(self.deleted) - timedelta(seconds=self.grace_s)

    @property
    def training(self) -> Container | None:
        """The container that trains; None until the kubelet has reported it."""
        return next((c for c in self.containers if c.name == self.main), None)

    @property
    def order(self) -> tuple[str, str]:
        """Pods of a Job sorted by this are its attempts."""
        return self.created, self.name


class TemplateRow(Struct, frozen=True, kw_only=True, gc=False):
    """A PodTemplate: what its pipeline's pods are built on."""

    namespace: str
    name: str
    uid: str
    resource_version: str
    template: bytes
    """JSON of metadata and spec of a pod"""


class EventRow(Struct, frozen=True, gc=False):
    """What the cluster noted about an object."""

    reason: str
    message: str
    last: str
    """when it happened last; sorts as text"""


def decode_job(raw: bytes | msgspec.Raw) -> JobRow:
    """The row of a Job, given its JSON.

    Raises:
        msgspec.DecodeError: it is no Job, or not JSON.
    """
    wire = _decode_job(raw)
    meta, template = wire.metadata, wire.spec.template
    image = next((c.image for c in template.spec.containers), None)
    return JobRow(
        namespace=intern(meta.namespace),
        name=meta.name,
        uid=meta.uid,
        resource_version=meta.resourceVersion,
        created=meta.creationTimestamp,
        deleted=meta.deletionTimestamp,
        spec=meta.annotations.get(SPEC_ANNOTATION),
        parameters=template.metadata.annotations.get(PARAMETERS_ANNOTATION),
        image=intern(image) if image is not None else None,
        suspended=wire.spec.suspend,
        started=wire.status.startTime,
        had_pods=wire.spec.managedBy in _ITS_OWN and wire.status.succeeded + wire.status.failed > 0,
        conditions=_known(wire.status.conditions),
    )


_ITS_OWN: Final = (None, "kubernetes.io/job-controller")


def decode_pod(raw: bytes | msgspec.Raw) -> PodRow:
    """The row of a Pod, given its JSON.

    Raises:
        msgspec.DecodeError: it is no Pod, or not JSON.
    """
    wire = _decode_pod(raw)
    meta, status = wire.metadata, wire.status
    owner = next((o for o in meta.ownerReferences if o.kind == "Job"), _NOBODY)
    labelled = next((meta.labels[label] for label in JOB_NAME_LABELS if label in meta.labels), "")
    names = [c.name for c in wire.spec.containers]
    default = meta.annotations.get("kubectl.kubernetes.io/default-container", "")
    return PodRow(
        namespace=intern(meta.namespace),
        name=meta.name,
        uid=meta.uid,
        resource_version=meta.resourceVersion,
        job=owner.name or labelled,
        job_uid=owner.uid,
        created=meta.creationTimestamp,
        deleted=meta.deletionTimestamp,
        grace_s=meta.deletionGracePeriodSeconds,
        phase=status.phase,
        reason=status.reason,
        message=status.message,
        node=wire.spec.nodeName,
        conditions=_known(status.conditions),
        init_containers=tuple(status.initContainerStatuses),
        containers=tuple(status.containerStatuses),
        main=next((n for n in (TRAINING_CONTAINER, default) if n in names), (names or [""])[0]),
        sidecars=tuple(c.name for c in wire.spec.initContainers if c.restartPolicy == "Always"),
    )


def decode_template(raw: bytes | msgspec.Raw) -> TemplateRow:
    """The row of a PodTemplate, given its JSON.

    Raises:
        msgspec.DecodeError: it is no PodTemplate, or not JSON.
    """
    wire = _decode_template(raw)
    return TemplateRow(
        namespace=wire.metadata.namespace,
        name=wire.metadata.name,
        uid=wire.metadata.uid,
        resource_version=wire.metadata.resourceVersion,
        template=bytes(wire.template),
    )


def decode_events(raw: bytes) -> tuple[EventRow, ...]:
    """The rows of a list of Events, given its JSON.

    Raises:
        msgspec.DecodeError: it is no such list.
    """
    return tuple(
        EventRow(
            event.reason,
            event.message,
            event.lastTimestamp or event.eventTime or event.metadata.creationTimestamp,
        )
        for event in _decode_events(raw).items
    )


TRAINING_CONTAINER: Final = "training"


def _true_condition(conditions: tuple[Condition, ...], kind: str) -> Condition | None:
    return next((c for c in conditions if c.type == kind and c.status == "True"), None)


def _known(conditions: list[Condition]) -> tuple[Condition, ...]:
    return tuple(
        Condition(
            intern(c.type), intern(c.status), intern(c.reason), intern(c.message),
            c.lastTransitionTime,
        )
        for c in conditions
        if c.status in {"True", "False"}
    )  # fmt: skip


# The wire, with the API's own names.


class _Owner(Struct, gc=False):
    kind: str = ""
    name: str = ""
    uid: str = ""


class _Meta(Struct, gc=False):
    name: str
    uid: str
    resourceVersion: str  # noqa: N815
    creationTimestamp: str  # noqa: N815
    namespace: str = ""
    deletionTimestamp: str | None = None  # noqa: N815
    deletionGracePeriodSeconds: int = 0  # noqa: N815
    labels: dict[str, str] = field(default_factory=dict[str, str])
    annotations: dict[str, str] = field(default_factory=dict[str, str])
    ownerReferences: list[_Owner] = field(default_factory=list[_Owner])  # noqa: N815


class _ContainerSpec(Struct, gc=False):
    name: str = ""
    image: str = ""
    restartPolicy: str | None = None  # noqa: N815


class _PodSpec(Struct, gc=False):
    containers: list[_ContainerSpec] = field(default_factory=list[_ContainerSpec])
    initContainers: list[_ContainerSpec] = field(default_factory=list[_ContainerSpec])  # noqa: N815
    nodeName: str | None = None  # noqa: N815


class _TemplateMeta(Struct, gc=False):
    annotations: dict[str, str] = field(default_factory=dict[str, str])


class _Template(Struct, gc=False):
    metadata: _TemplateMeta = field(default_factory=_TemplateMeta)
    spec: _PodSpec = field(default_factory=_PodSpec)


class _JobSpec(Struct, gc=False):
    template: _Template
    suspend: bool = False
    managedBy: str | None = None  # noqa: N815


class _JobStatus(Struct, gc=False):
    conditions: list[Condition] = field(default_factory=list[Condition])
    startTime: str | None = None  # noqa: N815
    succeeded: int = 0
    failed: int = 0


class _Job(Struct, gc=False):
    metadata: _Meta
    spec: _JobSpec
    status: _JobStatus = field(default_factory=_JobStatus)


class _PodStatus(Struct, gc=False):
    phase: str = ""
    reason: str = ""
    message: str = ""
    conditions: list[Condition] = field(default_factory=list[Condition])
    initContainerStatuses: list[Container] = field(default_factory=list[Container])  # noqa: N815
    containerStatuses: list[Container] = field(default_factory=list[Container])  # noqa: N815


class _Pod(Struct, gc=False):
    metadata: _Meta
    spec: _PodSpec
    status: _PodStatus = field(default_factory=_PodStatus)


class _PodTemplate(Struct, gc=False):
    metadata: _Meta
    template: msgspec.Raw = msgspec.Raw(b"{}")


class _Event(Struct, gc=False):
    metadata: _Meta
    reason: str = ""
    message: str = ""
    lastTimestamp: str | None = None  # noqa: N815
    eventTime: str | None = None  # noqa: N815


class _Events(Struct, gc=False):
    items: list[_Event]


_NOBODY: Final = _Owner()
_decode_job: Final = msgspec.json.Decoder(_Job).decode
_decode_pod: Final = msgspec.json.Decoder(_Pod).decode
_decode_template: Final = msgspec.json.Decoder(_PodTemplate).decode
_decode_events: Final = msgspec.json.Decoder(_Events).decode
