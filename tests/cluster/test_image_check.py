"""The check of an image before its job, from POST to the Job that is there or is not."""

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from testbed import images
from tests.cluster.conftest import Kubectl
from tests.cluster.images.content import Pusher
from tests.cluster.service import Service, service
from tests.parity.server import PIPELINES
from tests.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

EPOCHS = {"epochs": {"type": "integer", "default": 20, "minimum": 1}}
LABELS = {"model-training.parameters": json.dumps(EPOCHS)}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def options(kubeconfig: Path, namespace: str) -> list[str]:
    return ["--kubeconfig", str(kubeconfig), "--namespace", namespace]


@pytest.fixture(scope="module")
def push(registry: str) -> Pusher:
    return Pusher(f"http://{registry}")


@pytest.fixture(scope="module")
async def running(
    options: list[str], namespace: str, registry: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Service]:
    team = f"{registry}/{namespace}"
    folder = tmp_path_factory.mktemp("service")
    async with service(folder, *options, "--registry", team) as started:
        await until(started.is_ready, within=30)
        yield started


async def post(running: Service, pipeline: str, **parameters: Any) -> Any:
    return await running.client.post(
        "/training-jobs", params={"pipeline": pipeline}, json=parameters
    )


async def jobs(running: Service, kubectl: Kubectl, namespace: str, pipeline: str) -> list[Any]:
    """The Jobs of a pipeline; the service has a record of just these."""
    items = json.loads(kubectl("get", "jobs", "-n", namespace, "-o", "json"))["items"]
    found = {item["metadata"]["name"]: item for item in items}
    found = {n: item for n, item in found.items() if n.startswith(f"model-training-{pipeline}-")}
    listed = await running.client.get("/training-jobs", params={"pipeline": pipeline})
    assert [each["name"] for each in listed.json()] == list(found)
    return list(found.values())


async def removed(running: Service, name: str) -> None:
    gone = await running.client.delete(f"/training-jobs/{name}", params={"wait": "60"})
    assert gone.status_code == 204


async def test_an_image_that_is_not_there(
    running: Service, kubectl: Kubectl, namespace: str, registry: str, push: Pusher
):
    """404; near are a pipeline that has a PodTemplate and one that had a job; nothing is there."""
    template = {
        "apiVersion": "v1",
        "kind": "PodTemplate",
        "metadata": {"name": "model-training-wine-big", "namespace": namespace},
        "template": {"spec": {"containers": [{"name": "training", "image": "unused"}]}},
    }
    kubectl("create", "-f", "-", given=template)
    push.image(f"{namespace}/model-training-wines", labels=LABELS)
    past = (await post(running, "wines")).json()["name"]

    async def tells() -> bool:
        answer = await post(running, "wine")
        problem = answer.json()
        assert (answer.status_code, problem["type"]) == (404, "/problems/pipeline-not-found")
        assert problem["looked"] == [f"{registry}/{namespace}/model-training-wine:latest"]
        return problem["nearest"] == ["wines", "wine-big"]

    await until(tells, within=20)
    assert await jobs(running, kubectl, namespace, "wine") == []
    assert len(await jobs(running, kubectl, namespace, "wines")) == 1
    await removed(running, past)


async def test_the_job_runs_the_digest_that_was_checked(
    running: Service, kubectl: Kubectl, namespace: str, registry: str, push: Pusher
):
    digest = push.image(f"{namespace}/model-training-sealed", labels=LABELS)
    job = (await post(running, "sealed")).json()
    later = push.image(f"{namespace}/model-training-sealed", labels={"number": "2"})
    assert later != digest
    image = f"{registry}/{namespace}/model-training-sealed@{digest}"
    assert (job["image"], job["digest"]) == (image, digest)
    assert (job["parameters"], job["warnings"]) == ({"epochs": 20}, [])
    [made] = await jobs(running, kubectl, namespace, "sealed")
    [container] = made["spec"]["template"]["spec"]["containers"]
    assert container["image"] == image
    assert {"name": "epochs", "value": "20"} in container["env"]
    await removed(running, job["name"])


async def test_parameters_are_held_against_the_labels(
    running: Service, kubectl: Kubectl, namespace: str, push: Pusher
):
    push.image(f"{namespace}/model-training-checked", labels=LABELS)
    answer = await post(running, "checked", epochs=0, epoch=1)
    assert answer.status_code == 422
    assert {each["path"] for each in answer.json()["errors"]} == {"body.epochs", "body.epoch"}
    assert await jobs(running, kubectl, namespace, "checked") == []


async def test_a_registry_that_is_away_refuses(
    options: list[str], kubectl: Kubectl, namespace: str, tmp_path: Path
):
    async with service(tmp_path, *options, "--registry", "127.0.0.1:1") as running:
        await until(running.is_ready, within=30)
        answer = await post(running, "away")
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) >= 1
        assert answer.json()["type"] == "/problems/registry-unavailable"
        assert "127.0.0.1:1 refuses the connection" in answer.json()["detail"]
        assert await jobs(running, kubectl, namespace, "away") == []


async def test_a_registry_that_is_away_is_a_warning_by_a_setting(
    options: list[str], kubectl: Kubectl, namespace: str, tmp_path: Path
):
    registry = ["--registry", "127.0.0.1:1"]
    setting = {"MODEL_TRAINING_IMAGE_UNKNOWN": "submit"}
    async with service(tmp_path, *options, *registry, **setting) as running:
        await until(running.is_ready, within=30)
        answer = await post(running, "unchecked", anything=1)
        assert answer.status_code == 201
        job = answer.json()
        image = "127.0.0.1:1/model-training-unchecked:latest"
        assert (job["image"], job["digest"]) == (image, None)
        assert job["warnings"] == [
            "the image was not checked, so the parameters were not either: "
            "127.0.0.1:1 refuses the connection"
        ]
        [made] = await jobs(running, kubectl, namespace, "unchecked")
        [container] = made["spec"]["template"]["spec"]["containers"]
        assert container["image"] == image
        await removed(running, job["name"])


async def test_images_that_lie_on_a_node(
    options: list[str],
    kubectl: Kubectl,
    namespace: str,
    registry: str,
    tmp_path: Path,
):
    """Known by the tag that a node tells of, and run by their digest; the rest is unknown."""
    # Its content its own: of an image by many names a node tells only five.
    content = images.pipeline(PIPELINES / "play", {"namespace": namespace})
    digest = images.push(content, f"{namespace}/model-training-loaded", registry)
    image = f"{registry}/{namespace}/model-training-loaded"
    kubectl("create", "-f", "-", given=pod_with(f"{image}:latest", namespace))
    nodes = {"MODEL_TRAINING_IMAGE_CHECK": "nodes"}
    team = ["--registry", f"{registry}/{namespace}"]
    async with service(tmp_path, *options, *team, **nodes) as running:
        await until(running.is_ready, within=30)
        answer = await post(running, "absent")
        assert answer.status_code == 503
        assert "no node tells of it" in answer.json()["detail"]
        assert await jobs(running, kubectl, namespace, "absent") == []

        async def is_told() -> bool:
            return (await running.client.get("/pipelines/loaded")).status_code == 200

        await until(is_told, within=90)  # a kubelet tells of its images once in a while
        job = (await post(running, "loaded", anything=1)).json()
        assert (job["image"], job["digest"]) == (f"{image}@{digest}", digest)
        assert job["warnings"] == [
            "its labels are not known, as no registry is asked: the parameters were not checked"
        ]
        await removed(running, job["name"])


def pod_with(image: str, namespace: str) -> dict[str, Any]:
    """A pod for whose sake an image is pulled; there is nothing in it to run."""
    container = {
        "name": "x",
        "image": image,
        "command": ["/nothing"],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "loads", "namespace": namespace},
        "spec": {"restartPolicy": "Never", "containers": [container]},
    }
