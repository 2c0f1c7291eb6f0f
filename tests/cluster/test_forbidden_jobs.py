"""What Kubernetes or the image itself forbids: 422 with the reason, and nothing is created."""

import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.conftest import Kubectl
from tests.cluster.images.content import Pusher
from tests.cluster.service import Service, service
from tests.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def running(
    kubeconfig: Path, namespace: str, registry: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Service]:
    push = Pusher(f"http://{registry}")
    push.image(f"{namespace}/model-training-good")
    labels = {"model-training.parameters": '{"epochs": {"type": "integr"}}'}
    push.image(f"{namespace}/model-training-broken", labels=labels)
    options = ["--kubeconfig", str(kubeconfig), "--namespace", namespace]
    team = f"{registry}/{namespace}"
    folder = tmp_path_factory.mktemp("service")
    async with service(folder, *options, "--registry", team) as started:
        await until(started.is_ready, within=30)
        yield started


@contextmanager
def applied(kubectl: Kubectl, *objects: dict[str, Any]) -> Iterator[None]:
    """Objects that are there for as long as a test needs them."""
    try:
        for each in objects:
            kubectl("create", "-f", "-", given=each)
        yield
    finally:
        for each in objects:
            metadata = each["metadata"]
            place = ["-n", metadata["namespace"]] if "namespace" in metadata else []
            kubectl("delete", each["kind"].lower(), metadata["name"], "--ignore-not-found", *place)


async def post(running: Service, pipeline: str = "good", **query: str) -> Any:
    return await running.client.post(
        "/training-jobs", params={"pipeline": pipeline, **query}, json={}
    )


async def refused(running: Service, word: str) -> str:
    """Wait until a plan is refused with this word, as what forbids it takes hold a moment later,
    and that of another test lets go later; then a job is refused.

    Returns:
        The reason.
    """

    async def plan() -> bool:
        answer = await post(running, dry_run="true")
        return answer.status_code == 422 and word in answer.json()["detail"]

    await until(plan, within=30)
    answer = await post(running)
    problem = answer.json()
    assert (answer.status_code, problem["type"]) == (422, "/problems/job-rejected"), problem
    assert problem["detail"].startswith("Kubernetes refuses this job: ")
    return problem["detail"]


async def nothing_there(running: Service, kubectl: Kubectl, namespace: str) -> None:
    found = json.loads(kubectl("get", "jobs,pods", "-n", namespace, "-o", "json"))["items"]
    assert found == []
    assert (await running.client.get("/training-jobs")).json() == []


async def test_a_quota_for_jobs(running: Service, kubectl: Kubectl, namespace: str):
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "few", "namespace": namespace},
        "spec": {"hard": {"count/jobs.batch": "0"}},
    }
    with applied(kubectl, quota):
        reason = await refused(running, "exceeded quota")
        await nothing_there(running, kubectl, namespace)
    assert "exceeded quota: few, requested: count/jobs.batch=1, used: count/jobs.batch=0" in reason


@pytest.mark.parametrize("kind", ["Invalid", "Forbidden"])
async def test_a_policy_of_admission(kind: str, running: Service, kubectl: Kubectl, namespace: str):
    """Also in words that sound like those of a right that is missing."""
    policy, binding = policy_for(namespace, kind, "jobs of other teams cannot run here")
    with applied(kubectl, policy, binding):
        reason = await refused(running, policy["metadata"]["name"])
        await nothing_there(running, kubectl, namespace)
    assert f"ValidatingAdmissionPolicy '{policy['metadata']['name']}'" in reason
    assert "jobs of other teams cannot run here" in reason


def policy_for(namespace: str, kind: str, message: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A policy that refuses every Job of the namespace, and its binding."""
    name = f"{namespace}-{kind.lower()}"
    rule = {
        "apiGroups": ["batch"],
        "apiVersions": ["v1"],
        "operations": ["CREATE"],
        "resources": ["jobs"],
    }
    policy = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [rule]},
            "validations": [{"expression": "false", "message": message, "reason": kind}],
        },
    }
    labels = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    binding = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {
            "policyName": name,
            "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": labels},
        },
    }
    return policy, binding


async def test_a_pod_template_that_makes_an_invalid_job(
    running: Service, kubectl: Kubectl, namespace: str
):
    """Valid by itself, but it names a volume as one of ours."""
    volume = {"name": "model-training-output", "emptyDir": {}}
    spec = {"containers": [{"name": "training", "image": "any"}], "volumes": [volume]}
    template = {
        "apiVersion": "v1",
        "kind": "PodTemplate",
        "metadata": {"name": "model-training-good", "namespace": namespace},
        "template": {"spec": spec},
    }
    with applied(kubectl, template):
        reason = await refused(running, "Duplicate")
        await nothing_there(running, kubectl, namespace)
    assert 'Duplicate value: "model-training-output"' in reason


async def test_an_image_with_broken_labels(running: Service, kubectl: Kubectl, namespace: str):
    answer = await post(running, "broken")
    problem = answer.json()
    assert (answer.status_code, problem["type"]) == (422, "/problems/invalid-declaration")
    [fault] = problem["errors"]
    image = f"{namespace}/model-training-broken:latest"
    assert fault["path"].endswith(f"{image}: model-training.parameters.epochs.type")
    assert "integr" in fault["message"]
    await nothing_there(running, kubectl, namespace)


async def test_a_namespace_that_is_not_there(
    kubeconfig: Path, namespace: str, registry: str, running: Service, tmp_path: Path
):
    """Whoever may do everything may do it there too: only the first job tells."""
    options = ["--kubeconfig", str(kubeconfig), "--namespace", "nowhere-at-all"]
    async with service(tmp_path, *options, "--registry", f"{registry}/{namespace}") as lost:
        await until(lost.is_ready, within=30)
        answer = await post(lost)
        assert answer.status_code == 503
        assert 'namespaces "nowhere-at-all" not found' in answer.json()["detail"]
