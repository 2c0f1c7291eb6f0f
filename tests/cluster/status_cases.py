"""How every row of the table of states comes about on a cluster, and what a user is told then.

Whatever ends a process by itself (exit codes, signals, stops in every state) is played by the
scenarios of ``tests/parity`` too, and is here only where a row needs it.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from model_training.executors.kubernetes import paths
from testbed import images
from tests.cluster.status_lab import SHELL, Lab, Object, shell_image
from tests.waiting import until

Begin = Callable[[Lab, "Told"], Awaitable[str]]


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a user is told in one case, and how it comes about."""

    row: str
    """of the table"""
    state: str
    reason: str | None = None
    message: str | None = None
    """a pattern"""
    more: Object = field(default_factory=dict[str, Any])
    """other fields of the job"""
    template: Object | None = None
    """adds to the pod of the pipeline's PodTemplate"""
    begin: Begin
    """makes the case; the name of its job"""
    lasts: bool = True
    """whether the objects stay as they are, so that the row can be found out"""
    pipeline: str = ""


NODE, RUNTIME, IMAGES, LOGIN_REGISTRY = "<node>", "<runtime>", "<images>", "<login registry>"
"""stand for what is known once there is a cluster"""
ELSEWHERE = "example.com/elsewhere"
"""no controller of the cluster's: nothing happens to such a Job but what a test writes"""


def ours(code: str = "true", **given: str) -> Begin:
    """A job of ours that runs ``code`` with these options."""

    async def begin(lab: Lab, told: Told) -> str:
        return await lab.post(code, told.pipeline, **given)

    return begin


def by_hand(code: str = "true", spec: Object | None = None, **pod: Any) -> Begin:
    """A Job that somebody made."""

    async def begin(lab: Lab, told: Told) -> str:
        made = lab.job(f"model-training-{told.pipeline}", code, spec, **pod)
        return await lab.make(lab.placed(made))

    return begin


def then(begin: Begin, act: Callable[[Lab, str], Awaitable[object]]) -> Begin:
    """The same, and something is done to the job, once it runs if it will."""

    async def both(lab: Lab, told: Told) -> str:
        name = await begin(lab, told)
        job = await lab.get(paths.job(lab.namespace, name))
        if job and "managedBy" not in job["spec"]:
            await lab.tells(name, "running")
        await act(lab, name)
        return name

    return both


def then_pod(begin: Begin, status: Object) -> Begin:
    """The same, and the status of its pod, on no node, is written in the kubelet's stead."""

    async def both(lab: Lab, told: Told) -> str:
        name = await begin(lab, told)
        await lab.patch_status("pod", await lab.pod(name), status)
        return name

    return both


async def delete_pod(lab: Lab, name: str) -> None:
    await lab.api.delete(paths.pod(lab.namespace, await lab.pod(name)), b"{}")


async def stop(lab: Lab, name: str) -> None:
    answer = await lab.ask("POST", f"/training-jobs/{name}/stop")
    assert answer.status_code == 202, answer.text


async def complete(lab: Lab, name: str) -> None:
    done = {
        "status": "True",
        "reason": "CompletionsReached",
        "message": "",
        "lastTransitionTime": LONG_AGO,
    }
    kinds = ("SuccessCriteriaMet", "Complete")
    await lab.patch_status("job", name, {
        "startTime": LONG_AGO, "completionTime": LONG_AGO, "succeeded": 1,
        "conditions": [done | {"type": kind} for kind in kinds],
    })  # fmt: skip


async def fail(lab: Lab, name: str) -> None:
    over = {
        "status": "True", "reason": "BackoffLimitExceeded", "lastTransitionTime": LONG_AGO,
        "message": "Job has reached the specified backoff limit",
    }  # fmt: skip
    kinds = ("FailureTarget", "Failed")
    await lab.patch_status("job", name, {
        "startTime": LONG_AGO, "conditions": [over | {"type": kind} for kind in kinds],
    })  # fmt: skip


LONG_AGO = "2026-01-01T00:00:00Z"


async def preempt(lab: Lab, told: Told) -> str:
    """A slot of the node that only these two want: nobody else's pods are in the way."""
    slot = f"example.com/{lab.namespace}"
    await lab.patch_node({"capacity": {slot: "1"}, "allocatable": {slot: "1"}})
    wants = {"resources": {"limits": {slot: "1"}}}
    low, high = (f"{lab.namespace}-{each}" for each in ("low", "high"))
    await lab.priority(low, -10)
    await lab.priority(high, 10)
    first = lab.job(f"model-training-{told.pipeline}", "sleep 300", container=wants,
                    priorityClassName=low)  # fmt: skip
    name = await lab.make(first)
    await lab.tells(name, "running")
    await lab.make(lab.job("preemptor", "true", container=wants, priorityClassName=high))
    return name


async def pull_from_silence(lab: Lab, told: Told) -> str:
    image = f"{lab.silence}/train:latest"
    return await lab.make(lab.job(f"model-training-{told.pipeline}", container={"image": image}))


async def attach(lab: Lab, told: Told) -> str:
    """A volume that is attached by a driver; its part is played here, and fails."""
    name = lab.namespace
    size = {"accessModes": ["ReadWriteOnce"], "storageClassName": ""}
    volume = {"metadata": {"name": name}, "spec": size | {
        "capacity": {"storage": "1Gi"},
        "csi": {"driver": "disks.example.com", "volumeHandle": name},
        "claimRef": {"namespace": name, "name": "disk"},
    }}  # fmt: skip
    claim = {"metadata": {"name": "disk"}, "spec": size | {
        "volumeName": name, "resources": {"requests": {"storage": "1Gi"}},
    }}  # fmt: skip
    await lab.create("/api/v1/persistentvolumes", volume)
    await lab.create(f"/api/v1/namespaces/{name}/persistentvolumeclaims", claim)
    volumes = [{"name": "disk", "persistentVolumeClaim": {"claimName": "disk"}}]
    made = lab.job(f"model-training-{told.pipeline}", volumes=volumes)
    [container] = made["spec"]["template"]["spec"]["containers"]
    container["volumeMounts"] = [{"name": "disk", "mountPath": "/disk"}]  # or nobody waits for it
    job = await lab.make(made)

    async def attachment() -> str | None:
        found = await lab.get("/apis/storage.k8s.io/v1/volumeattachments")
        return next(
            (each["metadata"]["name"] for each in (found or {})["items"]
             if each["spec"]["source"].get("persistentVolumeName") == name), None,
        )  # fmt: skip

    error = {"message": "the disk is in use elsewhere", "time": LONG_AGO}
    status = {"attached": False, "attachError": error}
    await lab.patch_status("volumeattachment", await until(attachment, 60), status)
    return job


async def no_command(lab: Lab, told: Told) -> str:
    lab.push_image(images.Image(shell_image().layers, {"User": "10001:10001"}), "nothing")
    made = lab.job(f"model-training-{told.pipeline}")
    [container] = made["spec"]["template"]["spec"]["containers"]
    del container["command"]
    container["image"] = f"{lab.registry}/nothing:latest"
    return await lab.make(made)


def container(**fields: Any) -> Object:
    """A PodTemplate's pod whose container has these fields."""
    return {"containers": [{"name": "training", "image": "any", **fields}]}


def shell(name: str, code: str) -> Object:
    """Another container of a PodTemplate's pod."""
    return {
        "name": name,
        "image": f"{IMAGES}/model-training-{SHELL}",
        "command": ["sh", "-c", code],
    }


def variable_of_secret(secret: str) -> Object:
    return {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": secret, "key": "token"}}}


def shut_down() -> Object:
    """A pod that a node ended as it shut down, as Kubernetes 1.36 writes it."""
    words = "Pod was terminated in response to imminent node shutdown."
    ended = {"exitCode": 143, "reason": "Error", "startedAt": LONG_AGO, "finishedAt": LONG_AGO}
    return {
        "phase": "Failed", "reason": "Terminated", "message": words,
        "conditions": [{
            "type": "DisruptionTarget", "status": "True", "lastTransitionTime": LONG_AGO,
            "reason": "TerminationByKubelet", "message": words,
        }],
        "containerStatuses": [{
            "name": "training", "image": "any", "imageID": "", "ready": False, "restartCount": 0,
            "state": {"terminated": ended},
        }],
    }  # fmt: skip


EVICTED = Told(
    row="_training_ended", state="failed", reason="Evicted",
    message='Usage of EmptyDir volume "scratch" exceeds the limit "1Mi".',
    pipeline="evicted",
    template={
        "volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": "1Mi"}}],
        **container(volumeMounts=[{"name": "scratch", "mountPath": "/scratch"}]),
    },
    begin=ours("dd if=/dev/zero of=/scratch/file bs=1M count=8; sleep 300"),
    lasts=False,  # the node may say later that it does not find the container any more
)  # fmt: skip
"""needs a node that limits what pods write, as nodes do by default and that of testbed does not"""
LOST_NODE = Told(
    row="_lost_node", state="running", reason="NodeUnreachable",
    message="the node lost does not answer; the cluster gives the pod up after a while",
    pipeline="lost",
    begin=by_hand(nodeName="lost"),
)  # fmt: skip
"""needs a cluster that has another node"""

CASES: dict[str, Told] = {
    # The process has run
    "it runs": Told(
        row="_running", state="running",
        begin=ours("sleep 300"),
    ),
    "it ended well": Told(
        row="_training_ended", state="succeeded", more={"exit_code": 0},
        begin=ours("true"),
    ),
    "it ended badly": Told(
        row="_training_ended", state="failed", reason="Error",
        message="exit code 3", more={"exit_code": 3},
        begin=ours("exit 3"),
    ),
    "more memory than its limit": Told(
        row="_training_ended", state="failed", reason="OutOfMemory",
        message="it used more memory than its limit, and was killed", more={"exit_code": 137},
        begin=ours("exec tail /dev/zero", memory="20Mi"),
    ),
    "longer than its timeout": Told(
        row="_training_ended", state="failed", reason="Timeout", message="ran longer than 2 s",
        begin=ours("sleep 300", timeout="2", grace="1"),
    ),
    "its pod was deleted by a person": Told(
        row="_training_ended", state="failed", reason="Error", more={"exit_code": 143},
        message="exit code 143, which is what a death by SIGTERM gives; "
        "its pod was deleted by somebody else",
        begin=then(ours("sleep 300"), delete_pod), lasts=False,
    ),
    "evicted, and the last attempt": Told(
        row="_training_ended", state="failed", reason="Disrupted",
        message="the cluster took its pod away: EvictionByEvictionAPI: .*",
        begin=then(by_hand("sleep 300"), Lab.evict), lasts=False,
    ),
    "evicted without a last word": Told(
        row="_job_failed", state="failed", reason="Disrupted",
        message="the cluster took its pod away: EvictionByEvictionAPI: .*",
        begin=then(by_hand("sleep 300", terminationGracePeriodSeconds=0), Lab.evict),
        lasts=False,
    ),
    "preempted": Told(
        row="_training_ended", state="failed", reason="Disrupted",
        message="the cluster took its pod away: PreemptionByScheduler: .*: preempting to "
        "accommodate a higher priority pod",
        begin=preempt, lasts=False,
    ),
    "its command is not on the path": Told(
        row="_training_ended", state="failed", reason="StartFailed",
        message="command not found: no-such-program", more={"exit_code": None},
        template=container(command=["no-such-program"]),
        begin=ours(),
    ),
    "its command is not in its image": Told(
        row="_training_ended", state="failed", reason="StartFailed",
        message="command not found: /app/train", more={"exit_code": None},
        template=container(command=["/app/train"]),
        begin=ours(),
    ),
    "its command cannot be run": Told(
        row="_training_ended", state="failed", reason="StartFailed",
        message='.*exec: "/etc/passwd": permission denied.*', more={"exit_code": None},
        template=container(command=["/etc/passwd"]),
        begin=ours(),
    ),
    # Stopped; in every other state by the scenarios of parity
    "it ignores that it is to stop": Told(
        row="_stopped", state="stopping", message="stop asked for by .*",
        begin=then(ours("trap '' TERM; sleep 300 & wait; sleep 300", grace="4"), stop),
        lasts=False,
    ),
    "it was stopped": Told(
        row="_stopped", state="stopped", more={"exit_code": 143},
        begin=then(ours("sleep 300"), stop), lasts=False,
    ),
    # The pod fails before the process has run
    "timed out while it waited": Told(
        row="_pod_failed", state="failed", reason="Timeout",
        message="ran longer than 25 s, and was still waiting: CreateContainerConfigError: "
        'secret "late" not found', more={"exit_code": None, "started_at": None},
        template=container(env=[variable_of_secret("late")]),
        begin=ours(timeout="25"),  # the node pulls no more than five images a second
    ),
    "the node has no room for it": Told(
        row="_pod_failed", state="failed", reason="OutOfcpu",
        message=".*cpu, requested: 500000, used: .*, capacity: .*",
        template={"nodeName": NODE},
        begin=ours(cpu="500"),
    ),
    "the node is another one": Told(
        row="_pod_failed", state="failed", reason="NodeAffinity", message=".*NodeAffinity.*",
        template={"nodeName": NODE, "nodeSelector": {"colour": "blue"}},
        begin=ours(),
    ),
    "an init container fails": Told(
        row="_pod_failed", state="failed", reason="Error",
        message="the init container fetch ended with exit code 7", more={"started_at": None},
        template={"initContainers": [shell("fetch", "exit 7")]},
        begin=ours(),
    ),
    # The Job has ended, and no pod tells how
    "complete without a pod": Told(
        row="_job_complete", state="succeeded", more={"exit_code": 0},
        begin=then(by_hand(spec={"managedBy": ELSEWHERE}), complete),
    ),
    "failed without a pod": Told(
        row="_job_failed", state="failed", reason="Error",
        message="Job has reached the specified backoff limit",
        begin=then(by_hand(spec={"managedBy": ELSEWHERE}), fail),
    ),
    "a deadline of the Job": Told(
        row="_job_failed", state="failed", reason="Timeout",
        message="the Job ran longer than its deadline",
        begin=by_hand("sleep 300", {"activeDeadlineSeconds": 3}), lasts=False,
    ),
    "a deadline of the Job, and its pod takes its time": Told(
        row="_training_ended", state="failed", reason="Timeout",
        message="the Job ran longer than its deadline",
        begin=by_hand("trap 'sleep 1; exit 6' TERM; sleep 300 & wait",
                      {"activeDeadlineSeconds": 3}), lasts=False,
    ),
    # No pod
    "suspended": Told(
        row="_suspended", state="pending", reason="Suspended",
        message="the Job is suspended; a queue of the cluster or a person resumes it",
        begin=by_hand(spec={"suspend": True}),
    ),
    "a quota": Told(
        row="_without_pod", state="pending", reason="QuotaExceeded",
        message="the cluster refuses its pod: exceeded quota: two-gpus, "
        r"requested: requests.nvidia.com/gpu=3, used: requests.nvidia.com/gpu=0, "
        r"limited: requests.nvidia.com/gpu=2",
        begin=ours(gpu="3"),
    ),
    "an account that is not there": Told(
        row="_without_pod", state="pending", reason="PodRefused",
        message="the cluster refuses its pod: error looking up service account .*: "
        'serviceaccount "robot" not found',
        template={"serviceAccountName": "robot"},
        begin=ours(),
    ),
    "a policy for pods": Told(
        row="_without_pod", state="pending", reason="PodRefused",
        message='the cluster refuses its pod: violates PodSecurity "restricted:latest": '
        'host namespaces .hostNetwork=true.*',
        begin=by_hand(hostNetwork=True),
    ),
    "another controller's": Told(
        row="_without_pod", state="pending", reason="Creating",
        message="the cluster is creating its pod",
        begin=by_hand(spec={"managedBy": ELSEWHERE}),
    ),
    # No node
    "more CPUs than there are": Told(
        row="_unschedulable", state="pending", reason="Unschedulable",
        message=r"0/\d+ nodes are available: \d+ Insufficient cpu\..*",
        begin=ours(cpu="500"),
    ),
    "no node of this kind": Told(
        row="_unschedulable", state="pending", reason="Unschedulable",
        message=r"0/\d+ nodes are available: \d+ node\(s\) didn't match Pod's node "
        "affinity/selector.*",
        template={"nodeSelector": {"colour": "blue"}},
        begin=ours(),
    ),
    "a claim that is not there": Told(
        row="_unschedulable", state="pending", reason="Unschedulable",
        message=r'0/\d+ nodes are available: persistentvolumeclaim "data" not found.*',
        template={"volumes": [
            {"name": "data", "persistentVolumeClaim": {"claimName": "data"}}
        ]},
        begin=ours(),
    ),
    "a gate": Told(
        row="_unschedulable", state="pending", reason="SchedulingGated",
        message="Scheduling is blocked due to non-empty scheduling gates",
        template={"schedulingGates": [{"name": "example.com/budget"}]},
        begin=ours(),
    ),
    "a scheduler that does not answer": Told(
        row="_starting", state="pending", reason="Scheduling",
        message="the cluster is choosing a node",
        template={"schedulerName": "nobody"},
        begin=ours(),
    ),
    # On its node
    "a node that does not begin": Told(
        row="_starting", state="pending", reason="Starting",
        message="the node nowhere is starting its container",
        template={"nodeName": "nowhere"},
        begin=ours(),
    ),
    "a volume of a secret that is not there": Told(
        row="_starting", state="pending", reason="FailedMount",
        message='.*secret "credentials" not found',
        template={
            "volumes": [{"name": "keys", "secret": {"secretName": "credentials"}}],
            **container(volumeMounts=[{"name": "keys", "mountPath": "/keys"}]),
        },
        begin=ours(),
    ),
    "a runtime that is not there": Told(
        row="_starting", state="pending", reason="FailedCreatePodSandBox",
        message='.*no runtime for "nothing" is configured',
        template={"runtimeClassName": RUNTIME},
        begin=ours(),
    ),
    "a volume that cannot be attached": Told(
        row="_starting", state="pending", reason="FailedAttachVolume",
        message="AttachVolume.Attach failed for volume .*the disk is in use elsewhere.*",
        begin=attach,
    ),
    "a registry that does not answer": Told(
        row="_starting", state="pending", reason="PullingImage",
        message='Pulling image "127.0.0.1:.*"',
        begin=pull_from_silence,
    ),
    "an init container runs": Told(
        row="_initialising", state="pending", reason="Initialising",
        message="the init container fetch prepares the pod",
        template={"initContainers": [shell("first", "true"), shell("fetch", "sleep 300")]},
        begin=ours(),
    ),
    "an init container cannot start": Told(
        row="_initialising", state="pending", reason="CreateContainerConfigError",
        message='secret "init" not found',
        template={"initContainers": [
            shell("fetch", "true") | {"env": [variable_of_secret("init")]}
        ]},
        begin=ours(),
    ),
    "an image that is not there": Told(
        row="_container_waits", state="pending", reason="ErrImagePull",
        message='.*/no-such-image:latest": .*: not found',
        begin=by_hand(container={"image": f"{IMAGES}/no-such-image:latest"}), lasts=False,
    ),
    "an image that is still not there": Told(
        row="_container_waits", state="pending", reason="ImagePullBackOff",
        message='Back-off pulling image ".*/still-no-image:latest": ErrImagePull: .*: not found',
        begin=by_hand(container={"image": f"{IMAGES}/still-no-image:latest"}),
    ),
    "an image behind a login": Told(
        row="_container_waits", state="pending", reason="ErrImagePull",
        message=".*: (?:401 Unauthorized|no basic auth credentials)",
        begin=by_hand(container={"image": f"{LOGIN_REGISTRY}/pause:latest"}), lasts=False,
    ),
    "the name of no image": Told(
        row="_container_waits", state="pending", reason="InvalidImageName",
        message='.*"Train:latest".*',
        begin=by_hand(container={"image": "Train:latest"}),
    ),
    "an image that must not be pulled": Told(
        row="_container_waits", state="pending", reason="ErrImageNeverPull",
        message='.*/never:latest" is not present with pull policy of Never',
        begin=by_hand(
            container={"image": f"{IMAGES}/never:latest", "imagePullPolicy": "Never"}
        ),
    ),
    "a variable of a secret that is not there": Told(
        row="_container_waits", state="pending", reason="CreateContainerConfigError",
        message='secret "api-token" not found',
        template=container(env=[variable_of_secret("api-token")]),
        begin=ours(),
    ),
    "a variable of a config map that is not there": Told(
        row="_container_waits", state="pending", reason="CreateContainerConfigError",
        message='configmap "settings" not found',
        template=container(envFrom=[{"configMapRef": {"name": "settings"}}]),
        begin=ours(),
    ),
    "an image without a command": Told(
        row="_container_waits", state="pending", reason="CreateContainerError",
        message=".*no command specified",
        begin=no_command,
    ),
    "it crashes again and again": Told(
        row="_container_waits", state="running", reason="CrashLoopBackOff",
        message=r"back-off \d+s restarting failed container=training .*",
        begin=by_hand("exit 5", {"backoffLimit": 6}, restartPolicy="OnFailure"),
    ),
    # Between two attempts
    "it is tried again": Told(
        row="_between_attempts", state="running", reason="Retrying",
        message="attempt 1 ended with exit code 3; another follows",
        begin=by_hand("exit 3", {"backoffLimit": 1}), lasts=False,
    ),
    "one of two pods has ended": Told(
        row="_between_attempts", state="running",
        begin=by_hand(
            "test $JOB_COMPLETION_INDEX = 1 || exec sleep 300",
            {"completionMode": "Indexed", "completions": 2, "parallelism": 2},
        ),
    ),
    "a pod is tried again": Told(
        row="_between_attempts", state="pending", reason="Retrying",
        message="attempt 1 ended; another follows",
        begin=by_hand(
            spec={"backoffLimit": 1}, nodeName=NODE, nodeSelector={"colour": "blue"}
        ), lasts=False,
    ),
    "evicted, and another attempt follows": Told(
        row="_between_attempts", state="running", reason="Disrupted",
        message=r"the cluster took its pod away \(EvictionByEvictionAPI: .*\); "
        "another attempt follows",
        begin=then(ours("sleep 300"), Lab.evict), lasts=False,
    ),
    "the attempt after an eviction": Told(
        row="_running", state="running", more={"attempt": 2},
        begin=then(ours("sleep 300"), Lab.evict),
    ),
    # What nobody here knows
    "a phase of a later Kubernetes": Told(
        row="_unrecognised", state="pending", reason="Unrecognised",
        message="Kubernetes says: pod phase Pondering",
        begin=then_pod(by_hand(schedulerName="nobody"), {"phase": "Pondering"}),
    ),
    # Recorded: what the kubelet of a node that shuts down writes, written here by hand
    "recorded: the node shuts down": Told(
        row="_training_ended", state="failed", reason="NodeLost",
        message="Pod was terminated in response to imminent node shutdown.",
        more={"exit_code": 143},
        begin=then_pod(by_hand(schedulerName="nobody"), shut_down()),
    ),
    "recorded: the node is shutting down": Told(
        row="_pod_failed", state="failed", reason="NodeLost",
        message="Pod was rejected: Pod was rejected as the node is shutting down.",
        begin=then_pod(by_hand(schedulerName="nobody"), {
            "phase": "Failed", "reason": "NodeShutdown",
            "message": "Pod was rejected: Pod was rejected as the node is shutting down.",
        }),
    ),
}  # fmt: skip
