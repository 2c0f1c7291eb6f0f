"""The Job that a JobSpec becomes: a value, built in layers by pure functions.

From the bottom: the ``PodTemplate`` named ``model-training-PIPELINE``, if there is one (whoever
deploys the pipeline owns it: resources, volumes, secrets, node selectors); our container
``training``; the job's own options; last, and whatever the layers below say, the security fields.
Rejected: templates of text, in which a parameter could become a field.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from model_training.declarations import environment_of
from model_training.executors.kubernetes.labels import (
    PARAMETERS_ANNOTATION,
    SPEC_ANNOTATION,
    labels_of,
)
from model_training.executors.kubernetes.objects import TRAINING_CONTAINER
from model_training.jobs import JobSpec, JSONObject, Resources, canonical_json

Object = dict[str, Any]

USER: Final = 10001  # no user of any node; the service's own image uses the same
LEFTOVER_TTL_S: Final = 7 * 86_400  # the net under our own removal of finished Jobs
DEADLINE_ROUNDING_S: Final = 1  # the kubelet counts from a start that is cut to whole seconds
LEAST_GRACE_S: Final = 1  # 0 would remove the pod from the API server before it has ended
PARAMETERS_FOLDER: Final = "/etc/model-training"
PARAMETERS_FILE: Final = PARAMETERS_FOLDER + "/parameters.json"
OUTPUT_FOLDER: Final = "/var/lib/model-training/output"
GPU_RESOURCE: Final = "nvidia.com/gpu"

# As on one machine: what is printed is seen at once. Everybody else's word counts before this.
_UNBUFFERED: Final[list[Object]] = [{"name": "PYTHONUNBUFFERED", "value": "1"}]
_PARAMETERS_VOLUME: Final = "model-training-parameters"
_OUTPUT_VOLUME: Final = "model-training-output"


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What all Jobs of one service have in common."""

    namespace: str
    outputs_claim: str | None = None
    """PersistentVolumeClaim in which each job gets a folder of its own name; None: its pod's"""
    outputs_folder: Path | None = None
    """where that claim is mounted for this service"""
    image_pull_policy: str | None = None
    """None: as Kubernetes decides, which for an image pinned by digest is IfNotPresent"""


def job_manifest(spec: JobSpec, site: Site, template: Object | None = None) -> Object:
    """The Job to be created.

    Args:
        spec: what is wanted.
        site: where.
        template: the ``template`` of a PodTemplate: metadata and spec of a pod.
    """
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": spec.name,
            "namespace": site.namespace,
            "labels": dict(labels_of(spec)),
            "annotations": {SPEC_ANNOTATION: canonical_json(_record(spec))},
        },
        "spec": {
            # Training is not repeatable by itself; what the cluster took away does not count.
            "backoffLimit": 0,
            "podFailurePolicy": {
                "rules": [{
                    "action": "Ignore",
                    "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
                }]
            },
            # Two trainers must never share a checkpoint.
            "podReplacementPolicy": "Failed",
            "ttlSecondsAfterFinished": LEFTOVER_TTL_S,
            "template": pod_template(spec, site, template),
        },
    }  # fmt: skip


def pod_template(spec: JobSpec, site: Site, template: Object | None = None) -> Object:
    """The pod of the Job, all layers together."""
    pod = template or {}  # never written to: each layer is a new value
    pod_spec = _ours(pod.get("spec") or {}, spec, site)
    pod_spec = _secured(_with_options(pod_spec, spec))
    metadata: Object = pod.get("metadata") or {}
    return {
        "metadata": {
            "labels": {**(metadata.get("labels") or {}), **labels_of(spec)},
            "annotations": {
                **(metadata.get("annotations") or {}),
                PARAMETERS_ANNOTATION: canonical_json(spec.parameters),
            },
        },
        "spec": pod_spec,
    }


def _record(spec: JobSpec) -> JSONObject:
    """What a lost ledger needs; parameters stand in an annotation of their own."""
    return {name: value for name, value in spec.to_json().items() if name != "parameters"}


# Our layer


def _ours(below: Object, spec: JobSpec, site: Site) -> Object:
    containers = cast("list[Object]", below.get("containers") or [])
    others = [each for each in containers if each.get("name") != TRAINING_CONTAINER]
    nothing: Object = {}
    base = next((each for each in containers if each.get("name") == TRAINING_CONTAINER), nothing)
    return {
        **below,
        "restartPolicy": "Never",
        "containers": [_container(base, spec, site), *others],
        "volumes": [*(below.get("volumes") or []), *_volumes(site)],
    }


def _container(below: Object, spec: JobSpec, site: Site) -> Object:
    container: Object = {
        **below,
        "name": TRAINING_CONTAINER,
        "image": spec.image,
        "env": _merged(_UNBUFFERED, _merged(below.get("env") or [], _variables(spec))),
        "volumeMounts": [*(below.get("volumeMounts") or []), *_mounts(spec, site)],
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    if site.image_pull_policy:
        container["imagePullPolicy"] = site.image_pull_policy
    if spec.command:
        container["args"] = [escaped(argument) for argument in spec.command]
    return container


def _variables(spec: JobSpec) -> list[Object]:
    """The job's environment, in the order of precedence: the last of a name holds."""
    fixed = dict(spec.environment) | environment_of(spec.parameters) | {
        "MODEL_TRAINING_JOB": spec.name,
        "MODEL_TRAINING_PIPELINE": spec.pipeline or "",
        "MODEL_TRAINING_PARAMETERS_FILE": PARAMETERS_FILE,
        "MODEL_TRAINING_OUTPUT": OUTPUT_FOLDER,
    }  # fmt: skip
    reference = {"fieldPath": f"metadata.annotations['{PARAMETERS_ANNOTATION}']"}
    return [
        *({"name": name, "value": escaped(value)} for name, value in fixed.items()),
        {"name": "MODEL_TRAINING_PARAMETERS", "valueFrom": {"fieldRef": reference}},
    ]


def escaped(text: str) -> str:
    """As a value or argument that reaches the process as ``text``.

    The kubelet replaces ``$(NAME)`` and takes ``$$`` for ``$``, so every ``$`` is doubled.
    """
    return text.replace("$", "$$")


def _merged(below: list[Object], above: list[Object]) -> list[Object]:
    names = {each["name"] for each in above}
    return [*(each for each in below if each.get("name") not in names), *above]


def _volumes(site: Site) -> list[Object]:
    item = {
        "path": PARAMETERS_FILE.rpartition("/")[2],
        "fieldRef": {"fieldPath": f"metadata.annotations['{PARAMETERS_ANNOTATION}']"},
    }
    output: Object = (
        {"persistentVolumeClaim": {"claimName": site.outputs_claim}}
        if site.outputs_claim
        else {"emptyDir": {}}
    )
    return [
        {"name": _PARAMETERS_VOLUME, "downwardAPI": {"items": [item]}},
        {"name": _OUTPUT_VOLUME, **output},
    ]


def _mounts(spec: JobSpec, site: Site) -> list[Object]:
    output: Object = {"name": _OUTPUT_VOLUME, "mountPath": OUTPUT_FOLDER}
    if site.outputs_claim:
        output["subPath"] = spec.name
    return [
        {"name": _PARAMETERS_VOLUME, "mountPath": PARAMETERS_FOLDER, "readOnly": True},
        output,
    ]


# The options of one job


def _with_options(below: Object, spec: JobSpec) -> Object:
    pod = dict(below)
    pod["terminationGracePeriodSeconds"] = max(LEAST_GRACE_S, math.ceil(spec.grace_s))
    if spec.timeout_s is not None:
        # Of the pod and not of the Job: waiting for a node does not count against the time.
        pod["activeDeadlineSeconds"] = math.ceil(spec.timeout_s) + DEADLINE_ROUNDING_S
    first, *others = cast("list[Object]", below["containers"])
    pod["containers"] = [_with_resources(first, spec.resources), *others]
    return pod


def _with_resources(container: Object, wanted: Resources) -> Object:
    amounts: dict[str, str] = {}
    if wanted.cpu is not None:
        amounts["cpu"] = f"{math.ceil(wanted.cpu * 1000)}m"
    if wanted.memory is not None:
        amounts["memory"] = str(wanted.memory)
    if wanted.gpu:
        amounts[GPU_RESOURCE] = str(wanted.gpu)
    if not amounts:
        return container
    resources: Object = container.get("resources") or {}
    both: Object = {
        kind: {**(resources.get(kind) or {}), **amounts} for kind in ("requests", "limits")
    }
    return {**container, "resources": {**resources, **both}}


# Security, over everything

# What a PodTemplate may say of it; all else is ours.
_POD_CONTEXT: Final = (
    "runAsUser",
    "runAsGroup",
    "fsGroup",
    "fsGroupChangePolicy",
    "supplementalGroups",
)
_CONTEXT: Final = ("runAsUser", "runAsGroup", "readOnlyRootFilesystem")


def _secured(below: Object) -> Object:
    context = cast("Object", below.get("securityContext") or {})
    pod = {
        **below,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "shareProcessNamespace": True,  # so that the command is not PID 1 and signals work
        "hostNetwork": False,
        "hostPID": False,
        "hostIPC": False,
        "securityContext": {
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            **{name: context[name] for name in _POD_CONTEXT if name in context},
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_confined(each) for each in below["containers"]],
    }
    if below.get("initContainers"):
        pod["initContainers"] = [_confined(each) for each in below["initContainers"]]
    pod.pop("ephemeralContainers", None)
    return pod


def _confined(container: Object) -> Object:
    context = cast("Object", container.get("securityContext") or {})
    return {
        **container,
        "securityContext": {
            **{name: context[name] for name in _CONTEXT if name in context},
            "allowPrivilegeEscalation": False,
            "privileged": False,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
