"""The Job that a spec becomes, compared whole; and what no layer below can take away."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_training.executors.kubernetes.manifest import Site, escaped, job_manifest
from model_training.jobs import JobSpec, Resources

SPEC = JobSpec(
    name="model-training-digits-0b5e5a3c-3a0c-4a8e-9d7e-0d3c1f5f9a11",
    id="0b5e5a3c-3a0c-4a8e-9d7e-0d3c1f5f9a11",
    pipeline="digits",
    namespace="training",
    owner="ada",
    created_at=datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
    parameters={"epochs": 3, "path": "$HOME/$(SECRET)"},
    request_digest="d1",
    executor="kubernetes",
    image="registry.example/model-training-digits@sha256:00",
    command=("--epochs", "3"),
    digest="sha256:00",
    timeout_s=90.0,
    grace_s=5.0,
    resources=Resources(cpu=0.5, memory=1 << 20, gpu=1),
)
SITE = Site(namespace="training", outputs_claim="outputs")
LABELS = {
    "app.kubernetes.io/name": "model-training",
    "app.kubernetes.io/component": "training-job",
    "app.kubernetes.io/managed-by": "model-training-api",
    "model-training.io/pipeline": "digits",
    "model-training.io/id": SPEC.id,
}
PARAMETERS = '{"epochs":3,"path":"$HOME/$(SECRET)"}'
CONFINED = {
    "allowPrivilegeEscalation": False,
    "privileged": False,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
ANNOTATION = {"fieldPath": "metadata.annotations['model-training.io/parameters']"}
AMOUNTS = {"cpu": "500m", "memory": "1048576", "nvidia.com/gpu": "1"}


def test_the_whole_job():
    manifest = job_manifest(SPEC, SITE)
    record = json.loads(manifest["metadata"]["annotations"].pop("model-training.io/spec"))
    assert JobSpec.from_json({**record, "parameters": SPEC.parameters}) == SPEC
    assert "parameters" not in record
    assert manifest == {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": SPEC.name,
            "namespace": "training",
            "labels": LABELS,
            "annotations": {},
        },
        "spec": {
            "backoffLimit": 0,
            "podFailurePolicy": {
                "rules": [
                    {
                        "action": "Ignore",
                        "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
                    }
                ]
            },
            "podReplacementPolicy": "Failed",
            "ttlSecondsAfterFinished": 604_800,
            "template": {
                "metadata": {
                    "labels": LABELS,
                    "annotations": {"model-training.io/parameters": PARAMETERS},
                },
                "spec": {
                    "restartPolicy": "Never",
                    "terminationGracePeriodSeconds": 5,
                    "activeDeadlineSeconds": 91,
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "shareProcessNamespace": True,
                    "hostNetwork": False,
                    "hostPID": False,
                    "hostIPC": False,
                    "securityContext": {
                        "runAsUser": 10001,
                        "runAsGroup": 10001,
                        "fsGroup": 10001,
                        "runAsNonRoot": True,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [
                        {
                            "name": "training",
                            "image": SPEC.image,
                            "args": ["--epochs", "3"],
                            "env": [
                                {"name": "PYTHONUNBUFFERED", "value": "1"},
                                {"name": "epochs", "value": "3"},
                                {"name": "path", "value": "$$HOME/$$(SECRET)"},
                                {"name": "MODEL_TRAINING_JOB", "value": SPEC.name},
                                {"name": "MODEL_TRAINING_PIPELINE", "value": "digits"},
                                {
                                    "name": "MODEL_TRAINING_PARAMETERS_FILE",
                                    "value": "/etc/model-training/parameters.json",
                                },
                                {
                                    "name": "MODEL_TRAINING_OUTPUT",
                                    "value": "/var/lib/model-training/output",
                                },
                                {
                                    "name": "MODEL_TRAINING_PARAMETERS",
                                    "valueFrom": {"fieldRef": ANNOTATION},
                                },
                            ],
                            "volumeMounts": [
                                {
                                    "name": "model-training-parameters",
                                    "mountPath": "/etc/model-training",
                                    "readOnly": True,
                                },
                                {
                                    "name": "model-training-output",
                                    "mountPath": "/var/lib/model-training/output",
                                    "subPath": SPEC.name,
                                },
                            ],
                            "terminationMessagePolicy": "FallbackToLogsOnError",
                            "resources": {"requests": AMOUNTS, "limits": AMOUNTS},
                            "securityContext": CONFINED,
                        }
                    ],
                    "volumes": [
                        {
                            "name": "model-training-parameters",
                            "downwardAPI": {
                                "items": [{"path": "parameters.json", "fieldRef": ANNOTATION}]
                            },
                        },
                        {
                            "name": "model-training-output",
                            "persistentVolumeClaim": {"claimName": "outputs"},
                        },
                    ],
                },
            },
        },
    }


TEMPLATE = {
    "metadata": {"labels": {"team": "vision", "model-training.io/id": "mine"}},
    "spec": {
        "nodeSelector": {"gpu": "a100"},
        "hostNetwork": True,
        "hostPID": True,
        "automountServiceAccountToken": True,
        "restartPolicy": "Always",
        "securityContext": {"runAsUser": 2000, "runAsNonRoot": False},
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
        "initContainers": [
            {"name": "fetch", "image": "fetch:1", "securityContext": {"privileged": True}}
        ],
        "containers": [
            {"name": "sidecar", "image": "sidecar:1"},
            {
                "name": "training",
                "image": "somebody/else:1",
                "env": [{"name": "HF_HOME", "value": "/cache"}, {"name": "epochs", "value": "9"}],
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                "resources": {"limits": {"cpu": "4", "example.com/fast": "1"}},
                "securityContext": {"privileged": True, "capabilities": {"add": ["SYS_ADMIN"]}},
            },
        ],
    },
}


def test_a_pod_template_lies_under_our_container_and_security_over_both():
    before = json.dumps(TEMPLATE)
    pod = job_manifest(SPEC, SITE, TEMPLATE)["spec"]["template"]
    assert json.dumps(TEMPLATE) == before, "the template itself stays as it is"
    spec = pod["spec"]
    training, sidecar = spec["containers"]
    assert pod["metadata"]["labels"] == {"team": "vision", **LABELS}
    assert spec["nodeSelector"] == {"gpu": "a100"}
    assert (spec["restartPolicy"], spec["hostNetwork"], spec["hostPID"]) == ("Never", False, False)
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsUser"] == 2000, "its owner may choose the user"
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["volumes"][0]["name"] == "data"
    assert training["image"] == SPEC.image
    assert training["volumeMounts"][0] == {"name": "data", "mountPath": "/data"}
    variables = [each["name"] for each in training["env"]]
    assert variables[:2] == ["PYTHONUNBUFFERED", "HF_HOME"], "the owner may say otherwise"
    assert variables.count("epochs") == 1
    assert training["resources"]["limits"] == {"example.com/fast": "1", **AMOUNTS}
    for container in (training, sidecar, *spec["initContainers"]):
        assert container["securityContext"] == CONFINED


def test_without_options_nothing_is_limited():
    plain = replace(SPEC, timeout_s=None, grace_s=0.0, resources=Resources(), command=())
    pod = job_manifest(plain, Site(namespace="n"))["spec"]["template"]["spec"]
    assert "activeDeadlineSeconds" not in pod
    assert pod["terminationGracePeriodSeconds"] == 1
    assert "resources" not in pod["containers"][0]
    assert "args" not in pod["containers"][0], "the image's own arguments hold"
    assert pod["volumes"][-1] == {"name": "model-training-output", "emptyDir": {}}


def expanded(text: str, variables: dict[str, str]) -> str:
    """What the kubelet makes of a value (k8s.io/kubernetes/third_party/forked/golang/expansion)."""
    out, i = "", 0
    while i < len(text):
        if text[i] != "$" or i + 1 == len(text):
            out, i = out + text[i], i + 1
        elif text[i + 1] == "$":
            out, i = out + "$", i + 2
        elif text[i + 1] == "(" and ")" in text[i + 2 :]:
            name = text[i + 2 : text.index(")", i + 2)]
            out, i = out + variables.get(name, f"$({name})"), i + len(name) + 3
        else:
            out, i = out + "$", i + 1
    return out


@given(st.text(st.sampled_from("$()aA \n"), max_size=30))
def test_a_value_reaches_the_process_as_it_was_given(value: str):
    assert expanded(escaped(value), {"A": "leaked", "a": "leaked"}) == value


@pytest.mark.parametrize("seconds", [0.1, 1.0, 59.5])
def test_a_job_is_never_cut_short_of_its_time(seconds: float):
    pod = job_manifest(replace(SPEC, timeout_s=seconds), SITE)["spec"]["template"]["spec"]
    assert seconds + 1 <= pod["activeDeadlineSeconds"] < seconds + 2
