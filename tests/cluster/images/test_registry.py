"""Images that are there, and images that are not, as a real registry tells it."""

import asyncio

import pytest

from model_training.images.outcomes import Absent, Present, Unknown, Unusable
from model_training.images.reference import ImageReference
from tests.cluster.images.registries import registry
from tests.waiting import until

pytestmark = pytest.mark.anyio

LABELS = {"model-training.description": "Zahlen größer als π", "org.example.other": "x"}


async def test_an_image_that_is_there(open_registry, push, client):
    digest = push.image("there", labels=LABELS)
    found = await client().check(ImageReference(open_registry.host, "there", "latest"))
    assert found == Present(digest, LABELS)


async def test_an_image_without_labels(open_registry, push, client):
    digest = push.image("team/bare")
    found = await client().check(ImageReference(open_registry.host, "team/bare", "latest"))
    assert found == Present(digest, {})


async def test_only_labels_of_the_prefix_are_kept(open_registry, push, client):
    push.image("there", labels=LABELS)
    asking = client(label_prefix="model-training.")
    found = await asking.check(ImageReference(open_registry.host, "there", "latest"))
    assert list(found.labels) == ["model-training.description"]


async def test_a_tag_that_is_not_there(open_registry, push, client):
    push.image("there")
    found = await client().check(ImageReference(open_registry.host, "there", "v2"))
    assert found == Absent()


async def test_a_repository_that_is_not_there(open_registry, client):
    found = await client().check(ImageReference(open_registry.host, "not/there", "latest"))
    assert found == Absent()


async def test_an_image_by_its_digest(open_registry, push, client):
    digest = push.image("there", labels=LABELS)
    image = ImageReference(open_registry.host, "there", "latest").pinned(digest)
    assert await client().check(image) == Present(digest, LABELS)
    other = image.pinned("sha256:" + "0" * 64)
    assert await client().check(other) == Absent()


async def test_of_an_index_the_labels_of_the_platform(open_registry, push, client):
    platforms = {
        ("linux", "arm64"): {"which": "arm"},
        ("linux", "amd64"): {"which": "amd"},
        ("unknown", "unknown"): {"which": "attestation"},
    }
    digest = push.index("both", "latest", platforms)
    image = ImageReference(open_registry.host, "both", "latest")
    assert await client().check(image) == Present(digest, {"which": "amd"})


async def test_of_an_index_without_the_platform_the_labels_of_the_first_for_linux(
    open_registry, push, client
):
    platforms = {
        ("windows", "amd64"): {"which": "windows"},
        ("linux", "arm64"): {"which": "arm"},
        ("linux", "s390x"): {"which": "z"},
    }
    digest = push.index("arms", "latest", platforms)
    image = ImageReference(open_registry.host, "arms", "latest")
    assert await client().check(image) == Present(digest, {"which": "arm"})


async def test_an_index_without_any_for_linux(open_registry, push, client):
    push.index("windows", "latest", {("windows", "amd64"): {"which": "windows"}})
    image = ImageReference(open_registry.host, "windows", "latest")
    assert await client().check(image) == Unusable("holds no image for linux")


async def test_an_image_for_one_other_platform(open_registry, push, client):
    digest = push.image("arm", labels=LABELS, architecture="arm64")
    image = ImageReference(open_registry.host, "arm", "latest")
    assert await client().check(image) == Present(digest, LABELS)


async def test_what_is_no_image_and_then_is_one(open_registry, push, client):
    now = 0.0
    asking = client(now=lambda: now)
    push.chart("turns")
    image = ImageReference(open_registry.host, "turns", "latest")
    assert await asking.check(image) == Unusable("is no container image")
    digest = push.image("turns")
    now = 4.9
    assert isinstance(await asking.check(image), Unusable)
    now = 5.1
    assert await asking.check(image) == Present(digest)


async def test_a_tag_that_moves_is_seen_once_its_time_is_over(open_registry, push, client):
    now = 0.0
    asking = client(now=lambda: now)
    image = ImageReference(open_registry.host, "moving", "latest")
    assert await asking.check(image) == Absent()
    first = push.image("moving", labels={"number": "1"})
    now = 4.9
    assert await asking.check(image) == Absent()
    now = 5.1
    assert (await asking.check(image)).digest == first
    second = push.image("moving", labels={"number": "2"})
    now = 65.0
    assert (await asking.check(image)).digest == first
    now = 65.2
    assert (await asking.check(image)).digest == second


async def test_a_registry_that_goes_and_comes_back(tmp_path, storage, push, client):
    digest = push.image("there")
    asking = client()
    with registry(tmp_path, storage) as running:
        image = ImageReference(running.host, "there", "latest")
        running.stop()
        found = await asking.check(image)
        assert found == Unknown(f"{running.host} refuses the connection")
        running.start()

        async def is_there():
            return await asking.check(image) == Present(digest)

        await until(is_there, within=20)


async def test_many_who_ask_at_once_get_the_same_answer(open_registry, push, client):
    digest = push.image("there", labels=LABELS)
    asking = client()
    image = ImageReference(open_registry.host, "there", "latest")
    found = await asyncio.gather(*(asking.check(image) for _ in range(50)))
    assert found == [Present(digest, LABELS)] * 50
