"""Jobs that somebody else made: under the reserved prefix they are jobs like any other; all
others cannot be touched, nor seen.

All parts are played at once in one namespace; the tests look at what came of them.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from model_training.executors.kubernetes import paths
from model_training.executors.kubernetes.labels import PARAMETERS_ANNOTATION, SPEC_ANNOTATION
from tests.cluster.conftest import Kubectl
from tests.cluster.service import service
from tests.cluster.status_lab import PATIENCE_S, SHELL, Lab, Object, lab_in, options
from tests.waiting import until

pytestmark = pytest.mark.timeout(300)

Part = Callable[[Lab], Awaitable[None]]
PARTS: dict[str, Part] = {}


def part(play: Part) -> Part:
    PARTS[play.__name__] = play
    return play


async def kubectl_create(lab: Lab, made: Object) -> str:
    """By hand, as a person does."""
    made["metadata"]["namespace"] = lab.namespace
    await asyncio.to_thread(lab.kubectl, "create", "-f", "-", given=made)
    return made["metadata"]["name"]


async def stop(lab: Lab, name: str) -> None:
    answer = await lab.ask("POST", f"/training-jobs/{name}/stop")
    assert answer.status_code in {200, 202}, answer.text


async def delete(lab: Lab, name: str) -> None:
    """Nothing of it is left."""
    answer = await lab.ask("DELETE", f"/training-jobs/{name}", {"wait": "90"})
    assert answer.status_code == 204, answer.text
    assert await lab.get(paths.job(lab.namespace, name)) is None
    assert await lab.pods(name) == []
    assert (await lab.ask("GET", f"/training-jobs/{name}/status")).status_code == 404


# Under the prefix


@part
async def by_hand(lab: Lab) -> None:
    """It is listed, followed, read, stopped and deleted."""
    made = lab.job("model-training-by-hand", "echo words; sleep 300")
    name = await kubectl_create(lab, made)
    record = await lab.tells(name, "running")
    job = await lab.get(paths.job(lab.namespace, name))
    assert job is not None
    image = made["spec"]["template"]["spec"]["containers"][0]["image"]
    assert record | {
        "id": job["metadata"]["uid"], "pipeline": None, "owner": "unknown", "parameters": {},
        "namespace": lab.namespace, "image": image, "executor": "kubernetes", "attempt": 1,
    } == record  # fmt: skip
    assert record["created_at"] == job["metadata"]["creationTimestamp"][:-1] + ".000000Z"

    async def words() -> bool:
        return await lab.log(name) == b"words\n"

    await until(words, PATIENCE_S)
    await stop(lab, name)
    record = await lab.tells(name, "stopped")
    assert record["exit_code"] == 137  # it is PID 1 and minds no SIGTERM
    assert await lab.log(name) == b"words\n"
    await delete(lab, name)


@part
async def ended_by_hand(lab: Lab) -> None:
    name = await kubectl_create(lab, lab.job("model-training-3", "echo words; exit 3"))
    await lab.tells(name, "failed", "Error", "exit code 3", exit_code=3)
    assert await lab.log(name) == b"words\n"
    await stop(lab, name)  # it has ended: nothing changes
    await delete(lab, name)


def of_the_predecessor(lab: Lab, name: str, code: str) -> Object:
    """The Job that the first Training API makes of ``POST /training-jobs?pipeline_step=...``."""
    container = {
        "name": "model-training",
        "image": f"{lab.registry}/model-training-{SHELL}",
        "imagePullPolicy": "IfNotPresent",
        "env": [{"name": "CODE", "value": code}],
    }
    spec = {
        "restartPolicy": "Never",
        "serviceAccountName": "model-training-api",
        "containers": [container],
    }
    template = {"metadata": {"name": name}, "spec": spec}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"backoffLimit": 0, "template": template},
    }


@part
async def of_the_predecessor_to_its_end(lab: Lab) -> None:
    """The UUID at the end of its name tells the pipeline, as far as that was not cut."""
    name = f"model-training-logistic-tr-{uuid4()}"
    await lab.make(of_the_predecessor(lab, name, "echo 0.97; exit 0"))
    record = await lab.tells(name, "succeeded", exit_code=0)
    assert (record["pipeline"], record["owner"]) == ("logistic-tr", "unknown")
    assert await lab.log(name) == b"0.97\n"
    listed = (await lab.ask("GET", "/training-jobs", {"pipeline": "logistic-tr"})).json()
    assert [each["name"] for each in listed] == [name]
    await delete(lab, name)


@part
async def of_the_predecessor_stopped_and_deleted(lab: Lab) -> None:
    code = "trap 'echo bye; exit 0' TERM; echo words; sleep 300 & wait"
    name = f"model-training-train-{uuid4()}"
    await lab.make(of_the_predecessor(lab, name, code))
    await lab.tells(name, "running")
    await stop(lab, name)
    await lab.tells(name, "stopped", None, "finished during stop", exit_code=0)
    assert await lab.log(name) == b"words\nbye\n"
    other = f"model-training-train-{uuid4()}"
    await lab.make(of_the_predecessor(lab, other, code))
    await lab.tells(other, "running")
    await delete(lab, other)


@part
async def a_line_separator_in_an_annotation(lab: Lab) -> None:
    """U+0085 ends a line for some, not in JSON: the watch goes on."""
    made = lab.job("model-training-odd", "echo words")
    odd = {"annotations": {"example.com/note": "one\u0085two\u2028three"}}
    made["metadata"] |= odd
    made["spec"]["template"]["metadata"] = odd
    name = await lab.make(made)
    await lab.tells(name, "succeeded")
    assert await lab.log(name) == b"words\n"
    await delete(lab, name)


# A record that somebody edited

BROKEN = {"text": "not JSON", "another kind": "[1, 2]", "nothing": "{}"}


@part
async def an_edited_record(lab: Lab) -> None:
    """The server goes on with what it knew, which stands in its ledger."""
    name = await lab.post("echo words; sleep 300", grace="1")
    before = await lab.tells(name, "running")
    edited = json.dumps({"name": "model-training-another", "owner": "somebody"})
    await lab.patch("job", name, {"metadata": {"annotations": {SPEC_ANNOTATION: edited}}})
    await stop(lab, name)
    after = await lab.tells(name, "stopped", exit_code=143)
    for field in ("owner", "parameters", "id", "created_at", "pipeline"):
        assert after[field] == before[field]
    await delete(lab, name)


@part
async def records_that_are_none(lab: Lab) -> None:
    """Such a Job is one that others made."""

    async def one(kind: str) -> None:
        made = lab.job(f"model-training-broken-{kind.replace(' ', '-')}", "echo words; sleep 300")
        made["metadata"]["annotations"] = {SPEC_ANNOTATION: BROKEN[kind]}
        name = await lab.make(made)
        record = await lab.tells(name, "running")
        assert (record["owner"], record["pipeline"], record["parameters"]) == ("unknown", None, {})
        await delete(lab, name)

    await asyncio.gather(*map(one, BROKEN))


async def a_record(lab: Lab) -> str:
    """One as we write it."""
    query = {"pipeline": SHELL, "dry_run": "true"}
    plan = await lab.ask("POST", "/training-jobs", query, {"CODE": "true"})
    return plan.json()["manifest"]["metadata"]["annotations"][SPEC_ANNOTATION]


async def with_record(lab: Lab, suffix: str, **changed: Any) -> str:
    """A Job that others made with a record like ours, in which something else stands."""
    record = json.loads(await a_record(lab)) | changed
    made = lab.job(f"model-training-{suffix}", "echo words; sleep 300")
    made["metadata"]["annotations"] = {SPEC_ANNOTATION: json.dumps(record)}
    return await lab.make(made)


@part
async def a_record_of_another_name(lab: Lab) -> None:
    """The Job's own name and namespace hold."""
    name = await with_record(lab, "renamed", name="model-training-x", namespace="kube-system")
    record = await lab.tells(name, "running")
    assert record["namespace"] == lab.namespace
    await delete(lab, name)


WRONG_TYPES: dict[str, Any] = {
    "owner": 5, "timeout_s": "long", "grace_s": "long", "warnings": 3, "id": None,
    "resources": {"cpu": "many"}, "created_at": "yesterday", "environment": [], "command": "true",
    "pipeline": "\ud800",
}  # fmt: skip


async def poison(lab: Lab, field: str) -> None:
    """A field of another type makes it no record of ours, and harms nobody."""
    name = await with_record(lab, f"typed-{field.replace('_', '-')}", **{field: WRONG_TYPES[field]})
    await is_foreign(lab, name)


async def poisoned_parameters(lab: Lab) -> None:
    made = lab.job("model-training-parameters", "echo words; sleep 300")
    made["metadata"]["annotations"] = {SPEC_ANNOTATION: await a_record(lab)}
    made["spec"]["template"]["metadata"] = {"annotations": {PARAMETERS_ANNOTATION: "{"}}
    await is_foreign(lab, await lab.make(made))


async def is_foreign(lab: Lab, name: str) -> None:
    record = await lab.tells(name, "running", within=40)
    assert (record["owner"], record["parameters"]) == ("unknown", {})
    await delete(lab, name)


# Outside the prefix

OUTSIDE = ("training-of-others", "model-trainingx-1", "model-training", "a-model-training-1")


@part
async def outside_the_prefix(lab: Lab) -> None:
    """Never listed; a name of any other kind answers 404 too; the Job is still there."""

    async def one(name: str) -> None:
        await lab.make(lab.job(name, "echo words; sleep 300"))
        job = await lab.get(paths.job(lab.namespace, name))
        assert job is not None
        await until(lambda: lab.pods(name), PATIENCE_S)
        await untouchable(lab, name)
        now = await lab.get(paths.job(lab.namespace, name))
        assert now is not None
        assert now["metadata"]["uid"] == job["metadata"]["uid"]
        assert "deletionTimestamp" not in now["metadata"]
        assert name not in lab.told

    await asyncio.gather(*map(one, OUTSIDE))


@part
async def names_of_other_kinds(lab: Lab) -> None:
    pod = await lab.pod(await lab.make(lab.job("bystander", "sleep 300")))
    odd = ("Model-Training-1", "model-training-", "model-training-%2e%2e", "model-training-a%2Fb")
    for name in (pod, *odd, f"model-training-{'x' * 60}"):
        await untouchable(lab, name)
    assert (await lab.pods("bystander"))[-1]["metadata"]["name"] == pod


async def untouchable(lab: Lab, name: str) -> None:
    for method, more in (
        ("GET", ""), ("GET", "/status"), ("GET", "/outputs"), ("POST", "/stop"), ("DELETE", ""),
    ):  # fmt: skip
        answer = await lab.ask(method, f"/training-jobs/{name}{more}")
        assert answer.status_code == 404, (method, name, more, answer.text)


# Playing them


Came = dict[str, BaseException | None]
"""what came of each part: None, or what was wrong"""


@asynccontextmanager
async def serving(
    kubeconfig: Path, kubectl: Kubectl, namespace: str, registry: str, folder: Path
) -> AsyncGenerator[Lab]:
    """A lab whose server is ready."""
    async with (
        lab_in(kubeconfig, kubectl, namespace, registry) as lab,
        service(folder, *options(kubeconfig, lab)) as running,
    ):
        await until(running.is_ready, within=30)
        lab.client = running.client
        yield lab


@pytest.fixture(scope="module")
def played(
    kubeconfig: Path,
    kubectl: Kubectl,
    namespace: str,
    registry: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Came:
    # The predecessor's pods say nothing about security, and run as its own account.
    label = "pod-security.kubernetes.io/enforce=baseline"
    kubectl("label", "namespace", namespace, label, "--overwrite")
    kubectl("create", "serviceaccount", "model-training-api", "-n", namespace)
    folder = tmp_path_factory.mktemp("foreign")

    async def play() -> Came:
        async with serving(kubeconfig, kubectl, namespace, registry, folder) as lab:
            parts = (each(lab) for each in PARTS.values())
            came = await asyncio.gather(*parts, return_exceptions=True)
        return dict(zip(PARTS, came, strict=True))

    return asyncio.run(play())


@pytest.mark.parametrize("name", PARTS)
def test_a_part_is_as_it_should_be(name: str, played: Came):
    if error := played[name]:
        raise error


@pytest.fixture(scope="module")
def poisoned(
    kubeconfig: Path,
    kubectl: Kubectl,
    namespace: str,
    registry: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Came:
    """Of a server of its own: one such Job could harm all others."""
    folder = tmp_path_factory.mktemp("poisoned")

    async def play() -> Came:
        async with serving(kubeconfig, kubectl, namespace, registry, folder) as lab:
            parts = [*(poison(lab, field) for field in WRONG_TYPES), poisoned_parameters(lab)]
            came = await asyncio.gather(*parts, return_exceptions=True)
        return dict(zip((*WRONG_TYPES, "parameters"), came, strict=True))

    return asyncio.run(play())


@pytest.mark.parametrize("field", [*WRONG_TYPES, "parameters"])
def test_a_wrong_type_in_a_record_harms_nobody(field: str, poisoned: Came):
    if error := poisoned[field]:
        raise error
