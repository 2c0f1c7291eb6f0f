import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from model_training.access.actions import Action
from model_training.access.decisions import (
    Decision,
    LocalDecider,
    Resource,
    service_resource,
)
from model_training.access.guard import Guard
from model_training.access.principals import (
    LocalToken,
    Principal,
    PrincipalKind,
    read_or_create_token,
)
from model_training.errors import (
    AccessUnavailable,
    Forbidden,
    JobNotFound,
    SettingsError,
    Unauthenticated,
)
from model_training.jobs import JobState, TrainingJob

pytestmark = pytest.mark.anyio

LOCAL = Principal(PrincipalKind.LOCAL, "local", name="local")
JOB = TrainingJob(
    name="model-training-digits-x",
    id="x",
    pipeline="digits",
    namespace="local",
    state=JobState.RUNNING,
    executor="local",
    owner="local",
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
)


class Permits:
    """Permits the named actions and nothing else."""

    def __init__(self, *actions: Action) -> None:
        self._actions = actions

    async def decide(
        self, principal: Principal, action: Action, resources: Sequence[Resource]
    ) -> Sequence[Decision]:
        return [Decision(permitted=action in self._actions) for _ in resources]


class Forgets:
    """Answers fewer questions than it was asked."""

    async def decide(
        self, principal: Principal, action: Action, resources: Sequence[Resource]
    ) -> Sequence[Decision]:
        return []


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def test_the_token_file_is_made_once_for_its_owner_alone(tmp_path: Path):
    path = tmp_path / "token"
    token = read_or_create_token(path)

    assert len(token) >= 43
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_or_create_token(path) == token


def test_a_token_file_that_others_can_read_is_refused(tmp_path: Path):
    path = tmp_path / "token"
    read_or_create_token(path)
    path.chmod(0o644)

    with pytest.raises(SettingsError, match="chmod 600"):
        read_or_create_token(path)


def test_an_empty_token_file_is_refused(tmp_path: Path):
    path = tmp_path / "token"
    os.close(os.open(path, os.O_CREAT, 0o600))

    with pytest.raises(SettingsError, match="is empty"):
        read_or_create_token(path)


async def test_the_token_makes_the_local_user():
    assert await LocalToken("secret").authenticate({"authorization": "Bearer secret"}) == LOCAL


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": "Bearer wrong"},
        {"authorization": "Basic secret"},
        {"authorization": "secret"},
        {"authorization": "Bearer séc"},
    ],
)
async def test_anything_else_is_nobody(headers: dict[str, str]):
    with pytest.raises(Unauthenticated):
        await LocalToken("secret").authenticate(headers)


async def test_the_local_decider_refuses_strangers():
    guard = Guard(LocalDecider())

    await guard.require(LOCAL, Action.CREATE, service_resource("local"))
    with pytest.raises(Forbidden):
        await guard.require(
            Principal(PrincipalKind.USER, "local"), Action.CREATE, service_resource("local")
        )


async def test_a_hidden_job_and_an_absent_one_answer_the_same():
    guard = Guard(Permits())
    answers = []
    for job in (JOB, None):
        with pytest.raises(JobNotFound) as refused:
            await guard.require_job(LOCAL, Action.DELETE, JOB.name, job)
        answers.append(refused.value.message)

    assert answers[0] == answers[1]


async def test_a_readable_job_that_may_not_be_deleted_is_forbidden():
    guard = Guard(Permits(Action.READ))

    with pytest.raises(Forbidden):
        await guard.require_job(LOCAL, Action.DELETE, JOB.name, JOB)


async def test_a_decider_that_leaves_questions_open_permits_nothing():
    guard = Guard(Forgets())

    with pytest.raises(AccessUnavailable):
        await guard.permitted(LOCAL, Action.READ, [service_resource("local")])
