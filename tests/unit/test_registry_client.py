"""What a registry client does where a registry is slow, overloaded or hostile.

The registry is a fake, because a real one does none of it on request; the client, its sockets
and its clock's seconds are real where no test says otherwise.
"""

import asyncio
import json
import socket

import pytest

from model_training.images import exchange, registry
from model_training.images.credentials import DockerConfig
from model_training.images.documents import DOCUMENT_LIMIT
from model_training.images.outcomes import Absent, Present, Unknown, Unusable
from model_training.images.reference import ImageReference
from model_training.images.registry import RegistryClient
from tests.unit.scripted_registry import CONFIG, MANIFEST, Reply, digest_of, scripted_registry
from tests.waiting import until

pytestmark = pytest.mark.anyio

SECRET = "s3cret"


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
async def fake():
    async with scripted_registry() as running:
        yield running


@pytest.fixture
async def other():
    """Another host that the first may point to."""
    async with scripted_registry() as running:
        yield running


@pytest.fixture
async def client():
    made = RegistryClient()
    yield made
    await made.aclose()


@pytest.fixture
async def logged_in(tmp_path, fake):
    """A client with a login for the fake."""
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"auths": {fake.host: {"username": "lea", "password": SECRET}}}))
    made = RegistryClient(DockerConfig(file))
    yield made
    await made.aclose()


@pytest.fixture
def clock():
    class Clock:
        seconds = 0.0

        def __call__(self):
            return self.seconds

    return Clock()


# What is asked


async def test_every_form_of_a_manifest_is_accepted(fake, client):
    fake.hold("x")
    await client.check(fake.image("x"))
    accept = fake.asked[0].headers["accept"]
    assert fake.asked[0].method == "HEAD"
    for kind in (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    ):
        assert kind in accept


async def test_an_image_is_asked_for_once_by_many(fake, client):
    digest = fake.hold("x", {"a": "b"})
    fake.waits.clear()
    waiting = [asyncio.create_task(client.check(fake.image("x"))) for _ in range(20)]
    await until(lambda: fake.asked)
    waiting[0].cancel()  # who gives up takes none along
    fake.waits.set()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert found[1:] == [Present(digest, {"a": "b"})] * 19
    assert isinstance(found[0], asyncio.CancelledError)
    assert [method for method, _ in fake.seen()] == ["HEAD", "GET", "GET"]


async def test_the_labels_of_a_digest_are_fetched_once(fake, clock):
    client = RegistryClient(now=clock)
    digest = fake.hold("x", {"a": "b"})
    await client.check(fake.image("x"))
    clock.seconds = 61.0
    fake.asked.clear()
    assert await client.check(fake.image("x")) == Present(digest, {"a": "b"})
    assert fake.seen() == [("HEAD", "/v2/x/manifests/latest")]
    await client.aclose()


async def test_an_image_by_its_digest_is_believed_for_an_hour(fake, clock):
    client = RegistryClient(now=clock)
    digest = fake.hold("x", {"a": "b"})
    image = fake.image("x").pinned(digest)
    for clock.seconds, requests in ((0.0, 3), (3599.0, 3), (3601.0, 4)):
        assert await client.check(image) == Present(digest, {"a": "b"})
        assert len(fake.asked) == requests
    await client.aclose()


async def test_a_registry_that_cannot_do_a_head(fake, client):
    digest = fake.hold("x", {"a": "b"})
    fake.answers["HEAD /v2/x/manifests/latest"] = Reply(405)
    assert await client.check(fake.image("x")) == Present(digest, {"a": "b"})


async def test_a_registry_that_tells_no_digest(fake, client):
    digest = fake.hold("x")
    fake.answers["/v2/x/manifests/latest"] = Reply(
        200, fake.answers[f"/v2/x/manifests/{digest}"].body
    )
    assert await client.check(fake.image("x")) == Present(digest)


# What cannot be told


@pytest.mark.parametrize("body", [b"<h1>nginx</h1>", b'{"errors": [{"code": "DENIED"}]}'])
async def test_a_404_of_something_that_is_no_registry_is_no_answer(body, fake, client):
    fake.answers["/v2/x/manifests/latest"] = Reply(404, body)
    found = await client.check(fake.image("x"))
    assert isinstance(found, Unknown)
    assert "answers 404 as no registry does" in found.reason


@pytest.mark.parametrize("code", ["NAME_UNKNOWN", "MANIFEST_UNKNOWN", "NOT_FOUND"])
async def test_a_404_of_a_registry_is_an_answer(code, fake, client):
    body = json.dumps({"errors": [{"code": code}]}).encode()
    fake.answers["/v2/x/manifests/latest"] = Reply(404, body)
    assert await client.check(fake.image("x")) == Absent()


@pytest.mark.parametrize("status", [400, 418, 302, 304])
async def test_any_other_answer_is_none(status, fake, client):
    fake.answers["/v2/x/manifests/latest"] = Reply(status, b"foreign words", {"Location": "/login"})
    found = await client.check(fake.image("x"))
    assert isinstance(found, Unknown)
    assert "foreign" not in found.reason


async def test_a_slow_registry_is_given_up_and_left_alone_for_a_moment(fake, monkeypatch, clock):
    monkeypatch.setattr(registry, "TOTAL_S", 0.1)
    client = RegistryClient(now=clock)
    digest = fake.hold("x")
    fake.waits.clear()
    found = await client.check(fake.image("x"))
    assert found == Unknown(f"{fake.host} does not answer within 0 s")
    asked = len(fake.asked)
    assert (await client.check(fake.image("y"))).reason == found.reason
    assert len(fake.asked) == asked  # nobody else waits for it
    fake.waits.set()
    clock.seconds = 1.1
    monkeypatch.setattr(registry, "TOTAL_S", 5.0)
    assert await client.check(fake.image("x")) == Present(digest)
    await client.aclose()


@pytest.mark.parametrize(("said", "told"), [("7", 7), ("3600", 30), ("0", 1), ("Wed, 21 Oct", 5)])
async def test_an_overloaded_registry_gets_the_pause_that_it_asks_for(said, told, fake, clock):
    client = RegistryClient(now=clock)
    fake.answers["/v2/x/manifests/latest"] = Reply(429, b"slow down, lea", {"Retry-After": said})
    assert await client.check(fake.image("x")) == Unknown(f"{fake.host} asks for a pause", told)
    fake.hold("x")
    clock.seconds = 0.9
    assert isinstance(await client.check(fake.image("x")), Unknown)
    assert len(fake.asked) == 1
    clock.seconds = 30.1
    assert isinstance(await client.check(fake.image("x")), Present)
    await client.aclose()


async def test_who_asks_in_a_pause_is_told_what_is_left_of_it(fake, clock):
    client = RegistryClient(now=clock)
    fake.answers["/v2/x/manifests/latest"] = Reply(429, headers={"Retry-After": "20"})
    await client.check(fake.image("x"))
    clock.seconds = 3.0
    assert await client.check(fake.image("y")) == Unknown(f"{fake.host} asks for a pause", 17)
    await client.aclose()


@pytest.mark.parametrize("status", [500, 502, 503])
async def test_a_failing_registry(status, fake, client):
    fake.answers["/v2/x/manifests/latest"] = Reply(status, b"Traceback: s3cret")
    assert await client.check(fake.image("x")) == Unknown(f"{fake.host} answers {status}")


async def test_a_registry_that_refuses_the_connection(client):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        host = f"127.0.0.1:{taken.getsockname()[1]}"
    found = await client.check(ImageReference(host, "x", "latest"))
    assert found == Unknown(f"{host} refuses the connection")


async def test_an_answer_that_is_cut(fake, client):
    digest = fake.hold("x")
    fake.answers[f"/v2/x/manifests/{digest}"] = Reply(200, b"{", length=10)
    found = await client.check(fake.image("x"))
    assert found == Unknown(f"the connection to {fake.host} broke")
    asked = len(fake.asked)
    assert (await client.check(fake.image("y"))).reason == found.reason
    assert len(fake.asked) == asked  # a moment's pause


# Content


async def test_a_huge_manifest_is_not_read_to_its_end(fake, client):
    digest = "sha256:" + "0" * 64
    fake.answers["HEAD /v2/x/manifests/latest"] = Reply(
        200, headers={"Docker-Content-Digest": digest}
    )
    fake.answers[f"/v2/x/manifests/{digest}"] = Reply(200, bytes(DOCUMENT_LIMIT + 1), length=2**40)
    found = await client.check(fake.image("x"))
    assert found == Unknown(f"{fake.host} answers with more than {DOCUMENT_LIMIT} bytes")


async def test_a_page_for_everything_is_no_answer_of_a_registry(fake, client):
    fake.answers["/v2/x/manifests/latest"] = Reply(200, b"<h1>Log in to this network</h1>")
    found = await client.check(fake.image("x"))
    assert isinstance(found, Unknown)
    assert found.reason.startswith("the manifest of ")
    assert found.reason.endswith(" cannot be read")


async def test_content_that_is_not_what_was_asked_for(fake, client):
    digest = fake.hold("x")
    fake.answers[f"/v2/x/manifests/{digest}"] = Reply(200, b"{}")
    found = await client.check(fake.image("x"))
    name = fake.image("x").pinned(digest)
    assert found == Unknown(f"the registry gave other content than {digest} for {name}")


async def test_compressed_content_is_refused(fake, client):
    digest = fake.hold("x")
    fake.answers[f"/v2/x/manifests/{digest}"] = Reply(200, b"x", {"Content-Encoding": "gzip"})
    found = await client.check(fake.image("x"))
    assert found == Unknown(f"{fake.host} compresses its answers without being asked to")


@pytest.mark.parametrize(
    "config",
    [b"[]", b"{", b"[" * 100_000, b'{"config": {"Labels": {"a": 1}}}', b"\xff"],
)
async def test_a_configuration_that_cannot_be_read(config, fake, client):
    described = {"mediaType": CONFIG, "digest": digest_of(config)}
    manifest = json.dumps({"mediaType": MANIFEST, "config": described}).encode()
    fake.answers["/v2/x/manifests/latest"] = Reply(200, manifest)
    fake.answers[fake.blob("x", config)] = Reply(200, config)
    found = await client.check(fake.image("x"))
    assert isinstance(found, Unusable)
    assert found.reason in {
        "has a configuration that cannot be read",
        "has labels that are no text",
    }


async def test_what_is_no_container_image(fake, client):
    chart = {"mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": digest_of(b"")}
    manifest = json.dumps({"mediaType": MANIFEST, "config": chart}).encode()
    fake.answers["/v2/x/manifests/latest"] = Reply(200, manifest)
    assert await client.check(fake.image("x")) == Unusable("is no container image")


# Where it points to


def moved_blob(fake, where):
    """The blob of the image x, moved; its path."""
    digest = fake.hold("x", {"a": "b"})
    manifest = json.loads(fake.answers[f"/v2/x/manifests/{digest}"].body)
    path = f"/v2/x/blobs/{manifest['config']['digest']}"
    content = fake.answers[path].body
    fake.answers[path] = Reply(307, headers={"Location": where(path)})
    return digest, path, content


def wants_login(reply):
    """The reply, for whoever logs in."""
    headers = {"WWW-Authenticate": 'Basic realm="x"', "Set-Cookie": "a=b; Path=/"}
    refusal = Reply(401, headers=headers)
    return lambda asked: reply if "authorization" in asked.headers else refusal


async def test_a_blob_elsewhere_is_fetched_without_the_login(fake, other, logged_in):
    digest, path, content = moved_blob(fake, lambda path: f"http://{other.host}/deep{path}")
    fake.answers = {path: wants_login(reply) for path, reply in fake.answers.items()}
    other.answers[f"/deep{path}"] = Reply(200, content)
    assert await logged_in.check(fake.image("x")) == Present(digest, {"a": "b"})
    [asked] = other.asked
    assert "authorization" not in asked.headers
    assert "cookie" not in asked.headers
    assert asked.headers["host"] == other.host
    assert fake.asked[-1].headers["authorization"].startswith("Basic ")


async def test_the_storage_behind_a_registry_is_given_no_login(fake, other, logged_in):
    _, path, _ = moved_blob(fake, lambda path: f"http://{other.host}/stored{path}")
    fake.answers = {path: wants_login(reply) for path, reply in fake.answers.items()}
    realm = f'Bearer realm="http://{other.host}/token"'

    def thief(asked):
        return Reply(401, headers={"WWW-Authenticate": realm})

    other.answers = {"/token": thief, f"/stored{path}": thief}
    found = await logged_in.check(fake.image("x"))
    assert found == Unknown(f"{other.host}, where {fake.host} keeps its blobs, answers 401")
    assert len(other.asked) == 1
    assert "authorization" not in other.asked[0].headers


async def test_a_blob_is_followed_three_times(fake, client):
    digest, _, content = moved_blob(fake, lambda _: "/1")
    fake.answers |= {
        "/1": Reply(302, headers={"Location": "/2"}),
        "/2": Reply(301, headers={"Location": "3"}),
    }
    fake.answers["/3"] = Reply(200, content)
    assert await client.check(fake.image("x")) == Present(digest, {"a": "b"})


async def test_a_blob_is_not_followed_for_ever(fake, client):
    moved_blob(fake, lambda path: path)
    found = await client.check(fake.image("x"))
    assert found == Unknown(f"{fake.host} redirects more than 3 times for one blob")
    assert len(fake.asked) == 2 + 1 + exchange.REDIRECT_LIMIT


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("http://169.254.169.254/latest/meta-data", "points to plain HTTP at 169.254.169.254"),
        ("https://169.254.169.254/", "points to 169.254.169.254, an address that"),
        ("https://[fd00:ec2::254]/", "points to [fd00:ec2::254], an address that"),
        ("https://[::ffff:169.254.169.254]/", "an address that no registry may"),
        ("file:///etc/passwd", "points to something that is no web address"),
        ("http://lea:s3cret@127.0.0.1/", "points to an address with a login in it"),
        ("http://[", "points to something that is no web address"),
        ("http://" + "a" * 300 + "/", "points to something that is no web address"),
        ("http://registry.example.org/", "points to plain HTTP at registry.example.org"),
    ],
)
async def test_a_registry_may_not_send_us_anywhere(where, reason, fake, client):
    moved_blob(fake, lambda _: where)
    found = await client.check(fake.image("x"))
    assert isinstance(found, Unknown)
    assert reason in found.reason
    assert SECRET not in found.reason


# Tokens


def token_flow(fake, realm):
    """Wants the token ``good`` for everything."""
    refusal = Reply(
        401,
        headers={
            "WWW-Authenticate": f'Bearer realm="{realm}",service="s",scope="repository:x:pull,push"'
        },
    )

    def guarded(reply):
        return lambda asked: (
            reply if asked.headers.get("authorization") == "Bearer good" else refusal
        )

    fake.answers = {path: guarded(reply) for path, reply in fake.answers.items()}


@pytest.mark.parametrize("name", ["token", "access_token"])
async def test_a_token_is_asked_for_only_to_pull(name, fake, other, logged_in):
    digest = fake.hold("team/x")
    token_flow(fake, f"http://{other.host}/give?account=a")
    asked_for = "/give?account=a&scope=repository%3Ateam%2Fx%3Apull&service=s"
    other.answers[asked_for] = Reply(200, json.dumps({name: "good"}).encode())
    assert await logged_in.check(fake.image("team/x")) == Present(digest)
    assert other.seen() == [("GET", asked_for)]
    assert other.asked[0].headers["authorization"].startswith("Basic ")


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"", 200, "answers without a token"),
        (b'{"token": ""}', 200, "answers without a token"),
        (b'{"token": "a\\r\\nHost: b"}', 200, "answers without a token"),
        (b'{"token": 1, "secret": "s3cret"}', 200, "answers without a token"),
        (b"[" * 100_000, 200, "answers without a token"),
        (b"x" * 300_000, 200, "answers with more than 262144 bytes"),
        (SECRET.encode(), 403, "gives no token"),
        (SECRET.encode(), 404, "answers 404"),
        (b'{"token": "bad"}', 200, "does not show x to the login"),
    ],
    ids=lambda _: "",  # a test's folder bears its id, and must not hold the secret
)
async def test_no_good_token(body, status, reason, fake, other, logged_in):
    fake.hold("x")
    token_flow(fake, f"http://{other.host}/give")
    other.answers["/give?scope=repository%3Ax%3Apull&service=s"] = Reply(status, body)
    found = await logged_in.check(fake.image("x"))
    assert isinstance(found, Unknown)
    assert reason in found.reason
    assert SECRET not in found.reason


@pytest.mark.parametrize(
    ("life", "seconds", "asked"),
    [
        ({"expires_in": 100}, 89.0, 1),
        ({"expires_in": 100}, 91.0, 2),
        ({}, 61.0, 2),
        ({"expires_in": 1e9}, 61.0, 2),
        ({"expires_in": "100"}, 61.0, 2),
    ],
    ids=range(5),
)
async def test_how_long_a_token_is_used(life, seconds, asked, fake, other, clock):
    client = RegistryClient(now=clock)
    digest = fake.hold("x")
    token_flow(fake, f"http://{other.host}/give")
    given = Reply(200, json.dumps({"token": "good", **life}).encode())
    other.answers["/give?scope=repository%3Ax%3Apull&service=s"] = given
    for clock.seconds in (0.0, seconds):
        assert await client.check(fake.image("x")) == Present(digest)
    assert len(other.asked) == asked
    await client.aclose()


async def test_a_token_goes_before_a_password(fake, other, logged_in):
    digest = fake.hold("x")
    plain = dict(fake.answers)
    told = f'Basic realm="x", Bearer realm="http://{other.host}/give"'
    refusal = Reply(401, headers={"WWW-Authenticate": told})

    def guarded(reply):
        return lambda asked: (
            reply if asked.headers.get("authorization") == "Bearer good" else refusal
        )

    fake.answers = {path: guarded(reply) for path, reply in plain.items()}
    other.answers["/give?scope=repository%3Ax%3Apull"] = Reply(200, b'{"token": "good"}')
    assert await logged_in.check(fake.image("x")) == Present(digest)


async def test_a_token_that_is_refused_later_is_not_shown_again(fake, other, clock):
    client = RegistryClient(now=clock)
    digest = fake.hold("x")
    plain = dict(fake.answers)
    token_flow(fake, f"http://{other.host}/give")
    given = Reply(200, json.dumps({"token": "good", "expires_in": 9999}).encode())
    other.answers["/give?scope=repository%3Ax%3Apull&service=s"] = given
    assert await client.check(fake.image("x")) == Present(digest)

    def only_without(reply):
        return lambda asked: Reply(403) if "authorization" in asked.headers else reply

    fake.answers = {path: only_without(reply) for path, reply in plain.items()}
    clock.seconds = 61.0
    assert isinstance(await client.check(fake.image("x")), Unknown)
    assert await client.check(fake.image("x")) == Present(digest)
    await client.aclose()


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Negotiate",
        "Bearer",
        'Bearer realm="/token"',
        'Bearer realm="http://["',
        "Basic" * 10_000,
    ],
)
async def test_a_way_to_log_in_that_leads_nowhere(header, fake, logged_in):
    fake.answers["/v2/x/manifests/latest"] = Reply(401, headers={"WWW-Authenticate": header})
    assert isinstance(await logged_in.check(fake.image("x")), Unknown)


async def test_a_token_giver_on_the_link_is_not_asked(fake, logged_in):
    fake.hold("x")
    token_flow(fake, "https://169.254.169.254/token")
    assert "169.254.169.254, an address that" in (await logged_in.check(fake.image("x"))).reason


async def test_the_logins_are_in_no_representation(logged_in, tmp_path):
    login = DockerConfig(tmp_path / "config.json").login("127.0.0.1", "x")
    assert login is None
    [host] = json.loads((tmp_path / "config.json").read_text())["auths"]
    login = DockerConfig(tmp_path / "config.json").login(host, "x")
    assert SECRET not in repr(login)
