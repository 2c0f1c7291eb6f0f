"""Every row of the table of states, produced on the cluster and told by a server.

All cases are played at once in one namespace. Whatever ends a process by itself (exit codes,
signals, stops in every state) is played by the scenarios of ``tests/parity`` too, and is here only
where a row needs it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from model_training.executors.kubernetes import paths
from model_training.executors.kubernetes.observation import TABLE
from tests.cluster.service import service
from tests.cluster.status_lab import Lab, Object, lab_in, options
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


def ours(code: str = "true", **given: str) -> Begin:
    """A job of ours that runs ``code`` with these options."""

    async def begin(lab: Lab, told: Told) -> str:
        return await lab.post(code, told.pipeline, **given)

    return begin


def by_hand(code: str = "true", spec: Object | None = None, **pod: Any) -> Begin:
    """A Job that somebody made."""

    async def begin(lab: Lab, told: Told) -> str:
        return await lab.make(lab.job(f"model-training-{told.pipeline}", code, spec, **pod))

    return begin


def container(**fields: Any) -> Object:
    """A PodTemplate's pod whose container has these fields."""
    return {"containers": [{"name": "training", "image": "any", **fields}]}


CASES: dict[str, Told] = {
    "it runs": Told(
        row="_running", state="running",
        begin=ours("sleep 300"),
    ),
    "more CPUs than there are": Told(
        row="_unschedulable", state="pending", reason="Unschedulable",
        message=r"0/\d+ nodes are available: \d+ Insufficient cpu\..*",
        begin=ours(cpu="500"),
    ),
    "a variable of a secret that is not there": Told(
        row="_container_waits", state="pending", reason="CreateContainerConfigError",
        message='secret "api-token" not found',
        template=container(env=[{
            "name": "TOKEN",
            "valueFrom": {"secretKeyRef": {"name": "api-token", "key": "token"}},
        }]),
        begin=ours(),
    ),
    "suspended": Told(
        row="_suspended", state="pending", reason="Suspended",
        message="the Job is suspended; a queue of the cluster or a person resumes it",
        begin=by_hand(spec={"suspend": True}),
    ),
    "a command that is not there": Told(
        row="_training_ended", state="failed", reason="StartFailed",
        message="command not found: no-such-program", more={"exit_code": None},
        template=container(command=["no-such-program"]),
        begin=ours(),
    ),
}  # fmt: skip


async def play(lab: Lab, told: Told) -> None:
    name = await told.begin(lab, told)
    await lab.tells(name, told.state, told.reason, told.message, **told.more)
    if told.lasts:
        assert await lab.row(name) == told.row


@pytest.fixture(scope="module")
def played(
    kubeconfig: Path, namespace: str, registry: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, BaseException | None]:
    """What came of each case: None, or what was wrong."""
    cases = {
        name: replace(told, pipeline=f"case-{number}")
        for number, (name, told) in enumerate(CASES.items())
    }

    async def play_all() -> list[BaseException | None]:
        async with lab_in(kubeconfig, namespace, registry) as lab:
            templates = {c.pipeline: c.template for c in cases.values() if c.template is not None}
            await asyncio.to_thread(lab.push, *(each.pipeline for each in cases.values()))
            for pipeline, pod in templates.items():
                await lab.template(pipeline, pod)
            folder = tmp_path_factory.mktemp("status")
            async with service(folder, *options(kubeconfig, lab)) as running:
                await until(running.is_ready, within=30)
                lab.client = running.client
                playing = (play(lab, told) for told in cases.values())
                return await asyncio.gather(*playing, return_exceptions=True)

    return dict(zip(cases, asyncio.run(play_all()), strict=True))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", CASES)
def test_a_case_is_told(name: str, played: dict[str, BaseException | None]):
    if error := played[name]:
        raise error


def test_every_row_of_the_table_has_a_case():
    rows = {row.__name__ for row in TABLE}
    assert rows - {told.row for told in CASES.values()} == set()
