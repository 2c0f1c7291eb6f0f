"""An account with exactly the rights of the page trains; each that is missing is named."""

import asyncio
import copy
import json
import re
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml

from model_training.executors.kubernetes.api import KubernetesApi
from model_training.executors.kubernetes.executor import KubernetesExecutor
from model_training.executors.kubernetes.kubeconfig import load_cluster
from model_training.executors.kubernetes.manifest import Site
from model_training.executors.kubernetes.rights import RIGHTS, Right
from model_training.folders import DataFolder
from model_training.jobs import JobSpec
from model_training.names import job_name
from testbed import images
from tests.cluster.conftest import Kubectl
from tests.cluster.service import NOT_READY, Service, findings, service
from tests.parity.images import image
from tests.parity.server import PIPELINES
from tests.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "rights.md"
ACCOUNT = "model-training"
REFUSED_S = 60.0  # after a refusal a reflector waits for up to half a minute


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def objects(title: str, namespace: str) -> list[dict[str, Any]]:
    """The objects that the page shows below a heading, for another namespace."""
    section = PAGE.read_text().split(f"\n## {title}\n", 1)[1]
    text = re.search(r"```yaml\n(.*?)```", section, re.DOTALL)
    assert text
    found = list(
        yaml.safe_load_all(text[1].replace("namespace: training", f"namespace: {namespace}"))
    )
    for each in found:  # of the whole cluster, where others run the same tests
        if each["kind"].startswith("ClusterRole"):
            each["metadata"]["name"] = namespace
            if "roleRef" in each:
                each["roleRef"]["name"] = namespace
    return found


class Account:
    """A service account of one namespace, whose rights a test takes and gives."""

    def __init__(self, kubectl: Kubectl, namespace: str) -> None:
        self._kubectl = kubectl
        self.namespace = namespace
        self.role, *others = objects("A Role", namespace)
        for each in (self.role, *others):
            kubectl("apply", "-f", "-", given=each)

    def kubeconfig(self, admin: Path, file: Path) -> Path:
        content = yaml.safe_load(admin.read_text())
        token = self._kubectl("create", "token", ACCOUNT, "-n", self.namespace).strip()
        content["users"][0]["user"] = {"token": token}
        file.write_text(yaml.safe_dump(content))
        return file

    def may_do(self, rules: list[dict[str, Any]]) -> None:
        self._kubectl("apply", "-f", "-", given={**self.role, "rules": rules})

    def may_do_all(self, *but: Right) -> None:
        """All rights of the page but these."""
        rules = copy.deepcopy(self.role["rules"])
        for right in but:
            rule = next(r for r in rules if right.resource in r["resources"])
            rule["verbs"].remove(right.verb)
        self.may_do([rule for rule in rules if rule["verbs"]])


@pytest.fixture(scope="module")
def account(kubectl: Kubectl, namespace: str) -> Account:
    return Account(kubectl, namespace)


@pytest.fixture(scope="module")
def options(
    account: Account, kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[str]:
    """The cluster as the account sees it."""
    file = account.kubeconfig(kubeconfig, tmp_path_factory.mktemp("account") / "kubeconfig")
    return ["--kubeconfig", str(file), "--namespace", account.namespace]


@pytest.fixture(scope="module")
def team(registry: str, namespace: str) -> str:
    """Registry and prefix that has the pipeline ``play``."""
    images.push(image(PIPELINES / "play"), f"{namespace}/model-training-play", registry)
    return f"{registry}/{namespace}"


@pytest.fixture(autouse=True)
def whole(account: Account) -> None:
    """Each test begins with all rights, whatever the one before took."""
    account.may_do_all()


async def post(running: Service, code: str, key: str | None = None) -> Any:
    headers = {"Idempotency-Key": key} if key else {}
    return await running.client.post(
        "/training-jobs", params={"pipeline": "play"}, json={"CODE": code}, headers=headers
    )


async def test_an_account_of_exactly_these_rights_trains(
    options: list[str], team: str, tmp_path: Path
):
    found = findings(tmp_path, *options)
    assert [(each["level"], each["what"]) for each in found] == [
        ("ok", "cluster"),
        ("ok", "rights"),
    ]
    async with service(tmp_path, *options, "--registry", team) as running:
        await until(running.is_ready, within=30)
        answer = await post(running, "print('trained')", "again")
        assert answer.status_code == 201, answer.text
        name = answer.json()["name"]
        repeated = await post(running, "print('trained')", "again")
        assert repeated.json()["name"] == name
        async with asyncio.timeout(90):
            log = await running.client.get(f"/training-jobs/{name}", params={"follow": "true"})
        assert log.text == "trained\n"
        status = (await running.client.get(f"/training-jobs/{name}/status")).json()
        assert (status["state"], status["exit_code"]) == ("succeeded", 0)
        gone = await running.client.delete(f"/training-jobs/{name}", params={"wait": "60"})
        assert gone.status_code == 204
        assert await running.is_ready()
        assert not running.obstacles()
        assert "orbidden" not in running.log()


async def test_rights_are_named_once_and_again_when_they_change(
    account: Account, options: list[str], team: str, tmp_path: Path
):
    account.may_do([])
    async with service(tmp_path, *options, "--registry", team) as running:
        assert await running.readyz() == (503, NOT_READY)
        await until(lambda: len(running.obstacles()) == len(RIGHTS), within=30)
        for right in RIGHTS:
            words = f"may not {right.verb} {right.resource} in the namespace {account.namespace}"
            assert sum(words in line for line in running.obstacles()) == 1
        refused = await post(running, "")
        assert refused.status_code == 503
        account.may_do_all()
        await until(running.is_ready, within=REFUSED_S)
        assert len(running.obstacles()) == len(RIGHTS), "a right was named twice"
        assert "every right it needs" in running.log()

        creating = RIGHTS[0]
        account.may_do_all(creating)
        refused = await until(lambda: _refusal(running), within=20)
        assert refused.json()["type"] == "/problems/executor-unavailable"
        assert f"lacks a right in the namespace {account.namespace}" in refused.json()["detail"]
        assert "cannot create resource" in refused.json()["detail"]
        await until(running.is_not_ready, within=60)
        assert running.obstacles()[len(RIGHTS) :] == [
            "WARNING model_training.executors.kubernetes.readiness: Not ready: The service may "
            f"not create jobs in the namespace {account.namespace}, which it needs to start a "
            "training job, which is a Job; whoever administers the cluster grants the verb create "
            "on jobs of the API group batch by a Role there; docs/reference/rights.md has all of "
            "it."
        ]
        account.may_do_all()
        await until(running.is_ready, within=30)
        token = yaml.safe_load(Path(options[1]).read_text())["users"][0]["user"]["token"]
        assert token not in running.log()


async def _refusal(running: Service) -> Any:
    """The answer once the right is gone: the API server takes a moment to notice."""
    answer = await running.client.post(
        "/training-jobs", params={"pipeline": "play", "dry_run": "true"}, json={"CODE": ""}
    )
    return answer if answer.status_code != 200 else None


@pytest.mark.parametrize("right", RIGHTS, ids=lambda right: f"{right.verb} {right.resource}")
async def test_the_doctor_names_the_right_that_is_missing(
    right: Right, account: Account, options: list[str], tmp_path: Path
):
    account.may_do_all(right)

    def missing() -> list[dict[str, str]]:
        return [each for each in findings(tmp_path, *options) if each["what"] == "right"]

    async def found() -> list[dict[str, str]]:
        return await asyncio.to_thread(missing)

    [named] = await until(found, within=30)
    assert named["level"] == "fail"
    assert named["found"] == (
        f"may not {right.verb} {right.resource} in the namespace {account.namespace}, "
        f"needed to {right.why}"
    )
    assert f"the verb {right.verb} on {right.resource}" in named["way_out"]


async def test_all_namespaces_are_read_with_rights_in_all_of_them(
    account: Account, options: list[str], team: str, kubectl: Kubectl, tmp_path: Path
):
    wide = [*options, "--all-namespaces"]
    missing = [each["found"] for each in findings(tmp_path, *wide) if each["what"] == "right"]
    widening = [right for right in RIGHTS if right.widens]
    assert missing == [
        f"may not {right.verb} {right.resource} in all namespaces, needed to {right.why}"
        for right in widening
    ]
    granted = objects("All namespaces", account.namespace)
    try:
        for each in granted:
            kubectl("apply", "-f", "-", given=each)
        async with service(tmp_path, *wide, "--registry", team) as running:
            await until(running.is_ready, within=REFUSED_S)
            assert (await post(running, "")).status_code == 201
        assert [each["what"] for each in findings(tmp_path, *wide)] == ["cluster", "rights"]
    finally:
        for each in granted:
            kubectl("delete", each["kind"].lower(), each["metadata"]["name"])


async def test_each_right_is_one_that_is_used(
    options: list[str], account: Account, team: str, kubectl: Kubectl, tmp_path: Path
):
    """What a job of every kind asks for, counted where requests are made."""
    api = KubernetesApi(load_cluster(Path(options[1])))
    executor = KubernetesExecutor(api, DataFolder(tmp_path), Site(namespace=account.namespace))
    secret = {"name": "absent", "secret": {"secretName": "absent"}}
    # Mounted, as a node waits for no other volumes.
    mount = {"name": "absent", "mountPath": "/absent"}
    container = {"name": "training", "image": "any", "volumeMounts": [mount]}
    hanging = {"containers": [container], "volumes": [secret]}
    template = {
        "apiVersion": "v1",
        "kind": "PodTemplate",
        "metadata": {"name": "model-training-hangs", "namespace": account.namespace},
        "template": {"spec": hanging},
    }
    kubectl("create", "-f", "-", given=template)
    try:
        async with executor:
            seen = asyncio.create_task(_observe(executor))
            await until(lambda: executor.is_ready, within=30)
            runs = spec_of("play", f"{team}/model-training-play", account.namespace)
            hangs = spec_of("hangs", f"{team}/model-training-play", account.namespace)
            for spec in (runs, runs, hangs):
                await executor.launch(spec)
            await until(lambda: api.counts["get", "pods/log"], within=60)
            await until(lambda: api.counts["list", "events"], within=8)
            await until(lambda: _log_of(executor, runs.name) == b"ready\n", within=30)
            kubectl("delete", "job", runs.name, "-n", account.namespace, "--cascade=orphan")
            for spec in (runs, hangs):
                await executor.remove(spec.name)
            await until(lambda: not _left(kubectl, account.namespace, runs, hangs), within=60)
            seen.cancel()
    finally:
        kubectl("delete", "podtemplate", "model-training-hangs", "-n", account.namespace)
    used = {(verb, resource) for verb, resource in api.counts if not resource.startswith("/")}
    used.remove(("create", "selfsubjectaccessreviews"))
    listed = {(right.verb, right.resource) for right in RIGHTS}
    # Only where a log was cut and its container may have been restarted meanwhile.
    assert used | {("get", "pods")} == listed


def spec_of(pipeline: str, found: str, namespace: str) -> JobSpec:
    job_id = uuid4()
    return JobSpec(
        name=job_name(pipeline, job_id),
        id=str(job_id),
        pipeline=pipeline,
        namespace=namespace,
        owner="tester",
        created_at=datetime.now(UTC),
        parameters={"CODE": "import time; print('ready', flush=True); time.sleep(600)"},
        request_digest="",
        executor="kubernetes",
        image=f"{found}:latest",
        grace_s=1,
    )


async def _observe(executor: KubernetesExecutor) -> None:
    async for _ in executor.observe():
        pass


def _log_of(executor: KubernetesExecutor, name: str) -> bytes:
    folder = executor._data.job(name).log(1)
    return b"".join(segment.read_bytes() for segment in sorted(folder.glob("*.log")))


def _left(kubectl: Kubectl, namespace: str, *specs: JobSpec) -> Counter[str]:
    items = json.loads(kubectl("get", "jobs,pods", "-n", namespace, "-o", "json"))["items"]
    names = [each["metadata"]["name"] for each in items]
    return Counter(spec.name for spec in specs for name in names if name.startswith(spec.name))
