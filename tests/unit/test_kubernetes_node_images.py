"""What nodes tell of their images, and what is made of it."""

import asyncio
import json

import pytest

from model_training.executors.kubernetes import node_images
from model_training.executors.kubernetes.api import KubernetesApi
from model_training.executors.kubernetes.node_images import NodeImages
from model_training.images.outcomes import Unknown, Unread
from model_training.images.reference import ImageReference
from tests.unit.fake_api_server import fake_api_server, no, text

pytestmark = pytest.mark.anyio

IMAGE = ImageReference("registry.example.org", "team/x", "v1")
ONE, TWO = ("sha256:" + sign * 64 for sign in "12")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def page(*nodes: list[list[str] | None] | None, more: str = "") -> object:
    items = [
        {"status": {"images": images and [{"names": n, "sizeBytes": 1} for n in images]}}
        for images in nodes
    ]
    return text(200, json.dumps({"metadata": {"continue": more}, "items": items}))


async def found(*answers) -> object:
    async with fake_api_server(*answers) as server, KubernetesApi(server.config()) as api:
        return await NodeImages(api).check(IMAGE)


TAGGED = [f"{IMAGE.host}/{IMAGE.repository}@{ONE}", str(IMAGE)]


@pytest.mark.parametrize(
    ("nodes", "outcome"),
    [
        ([[TAGGED]], Unread(ONE)),
        ([[["a:b"]], None, [None, TAGGED]], Unread(ONE)),
        ([[TAGGED], [TAGGED]], Unread(ONE)),
        ([[[str(IMAGE)]]], Unread(None)),
        ([[[str(IMAGE), f"{IMAGE.host}/team/y@{TWO}"]]], Unread(None)),
        ([[TAGGED], [[f"{IMAGE.host}/team/x@{TWO}", "a:b"]]], Unread(ONE)),
        (
            [[TAGGED], [[f"{IMAGE.host}/team/x@{TWO}", str(IMAGE)]]],
            Unknown("nodes hold different images of this name"),
        ),
        (
            [[[TAGGED[0], str(IMAGE) + "0"]]],
            Unknown("no node tells of it; nodes tell of 50 images at most"),
        ),
        ([], Unknown("no node tells of it; nodes tell of 50 images at most")),
    ],
    ids=range(9),
)
async def test_what_nodes_tell(nodes, outcome):
    assert await found(page(*nodes)) == outcome


async def test_every_page_is_read():
    assert await found(page([["a:b"]], more="next"), page([TAGGED])) == Unread(ONE)


async def test_what_cannot_be_asked_cannot_be_told():
    forbidden = await found(no(403, "Forbidden", "nodes is forbidden: s3cret"))
    assert forbidden == Unknown(
        "the API server answers 403 when asked for nodes; "
        "grant the verb list on nodes by a ClusterRole"
    )
    assert await found(text(200, "[]")) == Unknown(
        "what the API server says of its nodes cannot be read"
    )
    async with fake_api_server(page()) as server:
        config = server.config()
    async with KubernetesApi(config) as api:
        away = await NodeImages(api).check(IMAGE)
    assert away.reason == f"The API server {config.server} cannot be asked now: Connection refused"


async def test_nodes_are_asked_once_by_many_and_again_after_a_while():
    now = 0.0
    async with (
        fake_api_server(page(), page([TAGGED])) as server,
        KubernetesApi(server.config()) as api,
    ):
        asking = NodeImages(api, now=lambda: now)
        many = await asyncio.gather(*(asking.check(IMAGE) for _ in range(10)))
        assert {type(each) for each in many} == {Unknown}
        assert len(server.requests) == 1
        now = node_images.KEPT_S
        assert await asking.check(IMAGE) == Unread(ONE)
