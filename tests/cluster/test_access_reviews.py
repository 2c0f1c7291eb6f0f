"""The real API server tells whose a token is, and decides by the policy that we publish."""

import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from model_training.access.actions import Action
from model_training.access.decisions import (
    Resource,
    pair_resource,
    pipeline_resource,
    service_resource,
)
from model_training.access.engines.subject_access_reviews import SubjectAccessReviews
from model_training.access.principals import Principal, PrincipalKind
from model_training.access.reviews import Review
from model_training.access.token_reviews import TokenReviews
from model_training.errors import AccessUnavailable, Unauthenticated
from model_training.executors.kubernetes.api import KubernetesApi
from model_training.executors.kubernetes.kubeconfig import load_cluster
from model_training.executors.kubernetes.reviewing import Reviewing
from model_training.executors.kubernetes.rights import REVIEW_RIGHTS, missing_rights
from tests.cluster.conftest import Kubectl
from tests.cluster.test_rights import ACCOUNT, objects
from tests.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

ROOT = Path(__file__).parents[2]
POLICY = ROOT / "src/model_training/access/policies/kubernetes/rbac.yaml"
AUDIENCE = "model-training"
GROUP = "model-training.alt"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def policy(namespace: str) -> list[dict[str, Any]]:
    """What we publish, for another namespace."""
    text = POLICY.read_text().replace("namespace: training,", f"namespace: {namespace},")
    return [each for each in yaml.safe_load_all(text) if each]


@pytest.fixture(scope="module", autouse=True)
def applied(kubectl: Kubectl, namespace: str) -> Iterator[None]:
    """The service's account with the rights of the page, the policy, and three callers."""
    account = next(
        each for each in objects("A Role", namespace) if each["kind"] == "ServiceAccount"
    )
    rights = objects("Access control", namespace)
    for each in [account, *rights, *policy(namespace)]:
        kubectl("apply", "-f", "-", given=each)
    for name in ("notebook", "dashboard", "stranger"):
        kubectl("create", "serviceaccount", name, "-n", namespace)
    yield
    for each in rights:
        if each["kind"].startswith("Cluster"):  # the others go with the namespace
            kubectl("delete", each["kind"].lower(), each["metadata"]["name"])


@pytest.fixture(scope="module")
def config(
    kubectl: Kubectl, kubeconfig: Path, namespace: str, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The cluster as the service's account sees it."""
    content = yaml.safe_load(kubeconfig.read_text())
    token = kubectl("create", "token", ACCOUNT, "-n", namespace).strip()
    content["users"][0]["user"] = {"token": token}
    file = tmp_path_factory.mktemp("account") / "kubeconfig"
    file.write_text(yaml.safe_dump(content))
    return file


@asynccontextmanager
async def reviewing(config: Path) -> AsyncGenerator[Review]:
    async with KubernetesApi(load_cluster(config)) as api:
        yield Reviewing(api)


@pytest.fixture
def token_of(kubectl: Kubectl, namespace: str) -> Any:
    def token(name: str, audience: str = AUDIENCE) -> str:
        options = ["--audience", audience] if audience else []
        return kubectl("create", "token", name, "-n", namespace, *options).strip()

    return token


# Whose a token is


async def test_an_account_comes_in_by_a_token_that_was_made_for_us(
    config: Path, token_of: Any, namespace: str
):
    async with reviewing(config) as review:
        found = await TokenReviews(review, AUDIENCE).principal(token_of("notebook"))

    assert found.kind is PrincipalKind.SERVICE_ACCOUNT
    assert found.id == f"kubernetes/{namespace}/notebook"
    assert found.name == f"system:serviceaccount:{namespace}:notebook"
    assert f"system:serviceaccounts:{namespace}" in found.groups
    assert found.expires_at is not None
    assert 600 < found.expires_at - time.time() < 7200
    assert found.cluster is not None
    assert found.cluster.uid


async def test_a_token_for_somebody_else_or_of_nobody_is_refused(config: Path, token_of: Any):
    good = token_of("notebook")
    head, claims, signature = good.split(".")
    other = token_of("dashboard").split(".")
    refused = {
        "for the API server": token_of("notebook", ""),
        "for another service": token_of("notebook", "another"),
        "of an audience that begins as ours": token_of("notebook", f"{AUDIENCE}-2"),
        "with the claims of another": f"{head}.{other[1]}.{signature}",
        "with another signature": f"{head}.{claims}.{other[2]}",
        "of nobody": "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmVk",
    }
    async with reviewing(config) as review:
        reviews = TokenReviews(review, AUDIENCE)
        await reviews.principal(good)
        came_in: list[str] = []
        for what, token in refused.items():
            try:
                await reviews.principal(token)
            except Unauthenticated:
                continue
            came_in.append(what)
    assert came_in == []


async def test_the_token_of_a_deleted_account_is_refused(
    config: Path, token_of: Any, kubectl: Kubectl, namespace: str
):
    kubectl("create", "serviceaccount", "leaving", "-n", namespace)
    token = token_of("leaving")
    async with reviewing(config) as review:
        await TokenReviews(review, AUDIENCE).principal(token)
        kubectl("delete", "serviceaccount", "leaving", "-n", namespace)

        async def is_refused() -> bool:
            try:
                await TokenReviews(review, AUDIENCE).principal(token)
            except Unauthenticated:
                return True
            return False

        await until(is_refused, within=30)


# What they may do

DIGITS = Resource("training_job", "model-training-digits-1", {"pipeline": "digits", "owner": "x"})
FRAUD = Resource("training_job", "model-training-fraud-1", {"pipeline": "fraud", "owner": "x"})
NONE = Resource("training_job", "model-training-lost-1", {"pipeline": "", "owner": "x"})
ALL = pipeline_resource("training", all=True)
SERVICE = service_resource("training")

# By hand, from the words beside the roles in the policy.
MAY: dict[str, dict[Action, list[Resource]]] = {
    "notebook": {
        Action.CREATE: [pipeline_resource("digits")],
        Action.LIST: [SERVICE, ALL, pipeline_resource("digits"), pipeline_resource("fraud")],
        Action.READ: [pipeline_resource("digits"), DIGITS, pair_resource("digits", "y")],
        Action.READ_LOGS: [DIGITS],
        Action.READ_OUTPUTS: [DIGITS],
        Action.STOP: [DIGITS],
        Action.DELETE: [DIGITS],
    },
    "dashboard": {
        Action.LIST: [SERVICE, ALL, pipeline_resource("digits"), pipeline_resource("fraud")],
        Action.READ: [
            ALL, pipeline_resource("digits"), pipeline_resource("fraud"), DIGITS, FRAUD, NONE,
            pair_resource("digits", "y"), pair_resource("fraud", "y"),
        ],
        Action.READ_LOGS: [DIGITS, FRAUD, NONE],
        Action.READ_OUTPUTS: [DIGITS, FRAUD, NONE],
    },
    "stranger": {},
}  # fmt: skip
RESOURCES = [
    SERVICE, ALL, pipeline_resource("digits"), pipeline_resource("fraud"), DIGITS, FRAUD, NONE,
    pair_resource("digits", "y"), pair_resource("fraud", "y"),
]  # fmt: skip
PAIR_ACTIONS = {Action.READ}  # pairs are for lists


async def caller(review: Review, token: str) -> Principal:
    return await TokenReviews(review, AUDIENCE).principal(token)


@pytest.mark.parametrize("name", MAY)
async def test_the_published_policy_gives_what_it_says_and_no_more(
    name: str, config: Path, token_of: Any, namespace: str
):
    async with reviewing(config) as review:
        principal = await caller(review, token_of(name))
        decider = SubjectAccessReviews(review, namespace, GROUP)
        for action in Action:
            asked = [
                each
                for each in RESOURCES
                if action in PAIR_ACTIONS or not each.id.startswith("jobs-")
            ]
            decisions = await decider.decide(principal, action, asked)
            permitted = [each for each, yes in zip(asked, decisions, strict=True) if yes.permitted]
            expected = [each for each in asked if each in MAY[name].get(action, [])]
            assert permitted == expected, action


async def test_a_role_that_is_taken_away_counts_no_more(
    config: Path, token_of: Any, kubectl: Kubectl, namespace: str
):
    binding = next(
        each
        for each in policy(namespace)
        if each["kind"] == "RoleBinding" and each["metadata"]["name"] == "digits-trainer"
    )
    async with reviewing(config) as review:
        principal = await caller(review, token_of("notebook"))
        decider = SubjectAccessReviews(review, namespace, GROUP)

        async def may_delete() -> bool:
            [decision] = await decider.decide(principal, Action.DELETE, [DIGITS])
            return decision.permitted

        async def may_not() -> bool:
            return not await may_delete()

        assert await may_delete()
        kubectl("delete", "rolebinding", "digits-trainer", "-n", namespace)
        try:
            await until(may_not, within=30)
        finally:
            kubectl("apply", "-f", "-", given=binding)
        await until(may_delete, within=30)


async def test_a_role_that_is_bound_and_not_there_refuses_and_is_told_of(
    config: Path, token_of: Any, kubectl: Kubectl, namespace: str
):
    subject = {"kind": "ServiceAccount", "namespace": namespace, "name": "stranger"}
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"namespace": namespace, "name": "dangling"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "lost"},
        "subjects": [subject],
    }
    kubectl("apply", "-f", "-", given=binding)
    try:
        async with reviewing(config) as review:
            principal = await caller(review, token_of("stranger"))
            decider = SubjectAccessReviews(review, namespace, GROUP)

            async def is_told() -> bool:
                [decision] = await decider.decide(principal, Action.READ, [DIGITS])
                assert not decision.permitted
                return "lost" in decision.reason

            await until(is_told, within=30)
    finally:
        kubectl("delete", "rolebinding", "dangling", "-n", namespace)


# The rights of the service itself


async def test_the_rights_of_the_page_are_all_that_are_needed(config: Path, namespace: str):
    async with KubernetesApi(load_cluster(config)) as api:

        async def are_enough() -> bool:
            return not await missing_rights(
                api, namespace, all_namespaces=False, rights=REVIEW_RIGHTS
            )

        await until(are_enough, within=30)
        # And nothing of jobs: the account has no other role here.
        assert await missing_rights(api, namespace, all_namespaces=False)


async def test_a_right_that_is_missing_is_named_and_nobody_comes_in(
    config: Path,
    token_of: Any,
    kubectl: Kubectl,
    namespace: str,
    caplog: pytest.LogCaptureFixture,
):
    token = token_of("notebook")
    rights = objects("Access control", namespace)
    bindings = [each for each in rights if each["kind"].endswith("Binding")]
    async with reviewing(config) as review:
        principal = await caller(review, token)
        decider = SubjectAccessReviews(review, namespace, GROUP)
        for each in bindings:
            where = [] if each["kind"].startswith("Cluster") else ["-n", namespace]
            kubectl("delete", each["kind"].lower(), each["metadata"]["name"], *where)
        try:
            await until(lambda: _is_unavailable(caller(review, token)), within=30)
            asked = decider.decide
            await until(lambda: _is_unavailable(asked(principal, Action.READ, [DIGITS])), within=30)
        finally:
            for each in bindings:
                kubectl("apply", "-f", "-", given=each)
    assert "may not create tokenreviews in all namespaces" in caplog.text
    place = f"in the namespace {namespace}"
    assert f"may not create localsubjectaccessreviews {place}" in caplog.text
    assert token not in caplog.text


async def _is_unavailable(asking: Any) -> bool:
    try:
        await asking
    except AccessUnavailable:
        return True
    return False
