"""Registries that want a login, by name and password and by token."""

import base64
import json

import pytest

from model_training.images.outcomes import Absent, Present, Unknown
from model_training.images.reference import ImageReference
from tests.cluster.images.tokens import IDENTITY

pytestmark = pytest.mark.anyio


def image_at(registry, repository="there", tag="latest"):
    return ImageReference(registry.host, repository, tag)


async def test_a_login_from_the_docker_config(closed_registry, push, client, docker_config):
    digest = push.image("there")
    asking = client(docker_config(closed_registry.host))
    assert await asking.check(image_at(closed_registry)) == Present(digest)
    assert await asking.check(image_at(closed_registry, "not-there")) == Absent()


async def test_no_login(closed_registry, push, client, docker_config):
    push.image("there")
    host = closed_registry.host
    found = await client().check(image_at(closed_registry))
    assert found.reason == (
        f"{host} wants a name and password, and got a service without any login "
        "(no docker config is set)"
    )
    elsewhere = docker_config("registry.example.org")
    found = await client(elsewhere).check(image_at(closed_registry))
    assert found.reason == (
        f"{host} wants a name and password, and got a service without a login "
        f"({elsewhere} holds none for it)"
    )


async def test_a_wrong_login(closed_registry, push, client, docker_config):
    push.image("there")
    config = docker_config(closed_registry.host, password="wr0ng")
    found = await client(config).check(image_at(closed_registry))
    assert found.reason == (
        f"{closed_registry.host} does not show there to the login in {config}: it is not there, "
        "or may not be read"
    )


async def test_a_login_that_is_corrected_counts_at_once(
    closed_registry, push, client, docker_config
):
    digest = push.image("there")
    asking = client(docker_config(closed_registry.host, password="wr0ng"))
    assert isinstance(await asking.check(image_at(closed_registry)), Unknown)
    docker_config(closed_registry.host)
    assert await asking.check(image_at(closed_registry)) == Present(digest)


async def test_a_broken_docker_config(closed_registry, client, docker_config):
    config = docker_config(closed_registry.host)
    config.write_text('{"auths": {"s3cret"')
    found = await client(config).check(image_at(closed_registry))
    assert found == Unknown(f"The docker config {config} is no JSON")


async def test_a_token_for_a_login(token_registry, tokens, push, client, docker_config):
    digest = push.image("team/there", labels={"a": "b"})
    asking = client(docker_config(token_registry.host))
    tokens.asked.clear()
    found = await asking.check(image_at(token_registry, "team/there"))
    assert found == Present(digest, {"a": "b"})
    # One token for all requests, to pull from this repository and nothing else.
    [asked] = tokens.asked
    assert asked["scope"] == "repository:team/there:pull"
    assert asked["method"] == "GET"
    assert await asking.check(image_at(token_registry, "team/there", "v2")) == Absent()
    assert len(tokens.asked) == 1


async def test_a_token_for_an_identity_token(token_registry, tokens, push, client, tmp_path):
    digest = push.image("there")
    config = tmp_path / "config.json"
    entry = {"auth": base64.b64encode(b"lea:").decode(), "identitytoken": IDENTITY}
    config.write_text(json.dumps({"auths": {token_registry.host: entry}}))
    tokens.asked.clear()
    assert await client(config).check(image_at(token_registry)) == Present(digest)
    [asked] = tokens.asked
    assert asked["method"] == "POST"
    assert asked["grant_type"] == "refresh_token"


@pytest.mark.parametrize("password", ["wr0ng", None], ids=["a wrong login", "no login"])
async def test_no_token(password, token_registry, tokens, push, client, docker_config):
    push.image("there")
    config = docker_config(token_registry.host, password) if password else None
    found = await client(config).check(image_at(token_registry))
    giver = f"127.0.0.1:{tokens.server_port}"
    who = (
        f"the login in {config}"
        if password
        else "a service without any login (no docker config is set)"
    )
    assert found == Unknown(f"{giver} gives no token for there to {who}")
    assert "wr0ng" not in found.reason


async def test_a_token_that_has_ended_is_asked_for_anew(
    token_registry, tokens, push, client, docker_config
):
    push.image("there")
    passed = 0.0
    asking = client(docker_config(token_registry.host), now=lambda: passed)
    tokens.asked.clear()
    for seconds in (0.0, 289.0, 351.0):
        passed = seconds
        assert isinstance(await asking.check(image_at(token_registry)), Present)
    assert len(tokens.asked) == 2
