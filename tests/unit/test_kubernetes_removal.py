"""What is deleted with a job, and what is left alone though it has the job's label."""

import json
from typing import Any

import pytest
from aiohttp import web

from model_training.executors.kubernetes.api import KubernetesApi
from model_training.executors.kubernetes.jobs import Job
from model_training.executors.kubernetes.objects import JobRow
from model_training.executors.kubernetes.removal import delete_everything
from tests.unit.fake_api_server import fake_api_server

pytestmark = pytest.mark.anyio

NAME = "model-training-a"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def pod(name: str, *owners: str) -> dict[str, Any]:
    references = [{"kind": "Job", "uid": uid} for uid in owners]
    return {"metadata": {"name": name, "uid": f"uid of {name}", "ownerReferences": references}}


async def test_pods_of_a_namesake_and_namesakes_of_pods_are_left_alone():
    """A pod of the same name that came meanwhile has another UID, which the cluster minds."""
    deleted: dict[str, Any] = {}

    async def answer(request: web.Request) -> web.Response:
        if request.method == "GET":
            pods = [pod("own", "u"), pod("let-go"), pod("stranger", "another")]
            return web.json_response({"items": pods})
        deleted[request.path.rpartition("/")[2]] = json.loads(await request.read())
        return web.json_response({})

    job = Job(NAME)
    job.take(
        JobRow(
            namespace="n", name=NAME, uid="u", resource_version="1", created="2026-01-01T00:00:00Z"
        )
    )
    job.row = None
    async with fake_api_server(answer) as cluster, KubernetesApi(cluster.config()) as api:
        await delete_everything(api, job, "n")
    assert deleted == {
        name: {"preconditions": {"uid": f"uid of {name}"}} for name in ("own", "let-go")
    }
