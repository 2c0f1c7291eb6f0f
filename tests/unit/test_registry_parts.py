"""The parts of the registry client that need no registry."""

import asyncio
import ipaddress
import json
import socket
from contextlib import suppress

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_training.errors import InvalidDeclaration, RegistryUnavailable
from model_training.images.destinations import Zone, destination, foreign_url, zone_of
from model_training.images.documents import read_labels, read_manifest, says_absent
from model_training.images.kept import Kept
from model_training.images.logins import Challenge, read_challenges

# What a 401 says


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("", []),
        ("Basic", [("basic", {})]),
        ('Basic realm="a b"', [("basic", {"realm": "a b"})]),
        (
            "Bearer realm=https://a/t , service=b",
            [("bearer", {"realm": "https://a/t", "service": "b"})],
        ),
        (
            'Bearer realm="https://a/t",service="s, \\"q\\"",scope="repository:x:pull,push"',
            [
                (
                    "bearer",
                    {
                        "realm": "https://a/t",
                        "service": 's, "q"',
                        "scope": "repository:x:pull,push",
                    },
                )
            ],
        ),
        (
            'Basic realm="a", Bearer realm="b"',
            [("basic", {"realm": "a"}), ("bearer", {"realm": "b"})],
        ),
        ('Negotiate, BEARER Realm = "b"', [("negotiate", {}), ("bearer", {"realm": "b"})]),
        ('realm="a"', []),
    ],
)
def test_the_ways_to_log_in_that_are_named(header, found):
    assert read_challenges(header) == [Challenge(*each) for each in found]


@given(st.text())
def test_whatever_a_401_says_can_be_read(header):
    read_challenges(header)


# What it keeps of an image


KEYS = ["config", "manifests", "digest", "mediaType", "Labels", "platform", "errors", "code"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.text() | st.integers(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(KEYS), inner),
    max_leaves=20,
)


@given(st.binary() | VALUES.map(lambda value: json.dumps(value).encode()))
def test_whatever_a_registry_keeps_is_read_or_refused(content):
    says_absent(content)
    for read in (read_manifest, read_labels):
        with suppress(RegistryUnavailable, InvalidDeclaration):
            read(content, "x")


def test_of_an_index_only_images_count():
    linux = {"os": "linux", "architecture": "amd64"}
    kinds = {
        "oci.image.index": "0",
        "oci.image.config": "1",
        "oci.image.manifest": "2",
    }
    entries = [
        {
            "mediaType": f"application/vnd.{kind}.v1+json",
            "digest": f"sha256:{sign * 64}",
            "platform": linux,
        }
        for kind, sign in kinds.items()
    ]
    entries.append({**entries[-1], "digest": "sha256:../.."})
    found = read_manifest(json.dumps({"manifests": entries}).encode(), "x")
    assert found.platforms == ((("linux", "amd64"), f"sha256:{'2' * 64}"),)


# Where it may send us


@pytest.mark.parametrize(
    ("address", "zone"),
    [
        ("1.1.1.1", Zone.PUBLIC),
        ("2606:4700::1", Zone.PUBLIC),
        ("10.1.2.3", Zone.PRIVATE),
        ("192.168.0.1", Zone.PRIVATE),
        ("100.64.0.1", Zone.PRIVATE),
        ("fd00::1", Zone.PRIVATE),
        ("::ffff:10.0.0.1", Zone.PRIVATE),
        ("127.0.0.1", Zone.LOOPBACK),
        ("::1", Zone.LOOPBACK),
        ("0.0.0.0", Zone.LOOPBACK),
        ("::", Zone.LOOPBACK),
        ("::ffff:127.0.0.1", Zone.LOOPBACK),
        ("64:ff9b::7f00:1", Zone.LOOPBACK),
        ("169.254.169.254", Zone.NEVER),
        ("fe80::1", Zone.NEVER),
        ("::ffff:169.254.0.1", Zone.NEVER),
        ("fd00:ec2::254", Zone.NEVER),
        ("168.63.129.16", Zone.NEVER),
        ("100.100.100.200", Zone.NEVER),
        ("64:ff9b::a9fe:a9fe", Zone.NEVER),
        ("2002:a9fe:a9fe::1", Zone.NEVER),
        ("224.0.0.1", Zone.NEVER),
    ],
)
def test_how_near_an_address_is(address, zone):
    assert zone_of(ipaddress.ip_address(address)) is zone


NAMES = {
    "public.org": ["1.1.1.1"],
    "other.org": ["1.0.0.1"],
    "private.org": ["10.0.0.1"],
    "near.org": ["127.0.0.1"],
    "mixed.org": ["1.1.1.1", "10.0.0.1"],
    "link.org": ["169.254.169.254"],
    "other-link.org": ["169.254.0.7"],
}


@pytest.fixture
def names(monkeypatch):
    """The names above, and addresses; nothing else is known."""

    def resolve(host, port, *args, **options):
        addresses = NAMES.get(host) or ([host] if host[0].isdecimal() else None)
        if addresses is None:
            raise socket.gaierror
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


@pytest.mark.parametrize(
    ("registry", "to", "asked"),
    [
        ("https://public.org", "https://other.org/x", "https://1.0.0.1/x"),
        ("https://public.org", "https://private.org/x", None),
        ("https://public.org", "https://mixed.org/x", None),
        ("https://public.org", "https://near.org/x", None),
        ("https://public.org", "https://link.org/x", None),
        ("https://public.org", "http://other.org/x", None),
        ("https://private.org", "https://private.org:8443/x", "https://10.0.0.1:8443/x"),
        ("https://private.org", "https://mixed.org/x", "https://1.1.1.1/x"),
        ("https://private.org", "https://near.org/x", None),
        ("https://private.org", "https://link.org/x", None),
        ("http://near.org", "http://private.org/x", "http://10.0.0.1/x"),
        ("http://near.org", "https://link.org/x", None),
        ("https://link.org", "https://link.org/x", "https://169.254.169.254/x"),
        ("https://other-link.org", "https://link.org/x", None),
        ("https://public.org", "https://nowhere.org/x", None),
    ],
)
def test_a_registry_sends_us_only_as_near_as_it_is_itself(names, registry, to, asked):
    base = httpx2.URL(registry)
    url = foreign_url(to, base=base)
    if asked is None:
        with pytest.raises(RegistryUnavailable):
            asyncio.run(destination(url, registry=base))
        return
    found = asyncio.run(destination(url, registry=base))
    # The address that was looked at is asked, under the name that the certificate must bear.
    assert str(found.url) == asked
    assert (found.host, found.name) == (url.netloc.decode(), url.host)


@pytest.mark.parametrize(
    ("registry", "to", "permitted"),
    [
        ("https://public.org", "https://other.org/x", True),
        ("https://public.org", "https://nowhere.org/x", True),
        ("https://nowhere.org", "https://other.org/x", True),
        ("https://private.org", "https://mixed.org/x", True),
        ("https://public.org", "https://private.org/x", False),
        ("https://nowhere.org", "https://private.org/x", False),
        ("https://nowhere.org", "https://127.0.0.1/x", False),
        ("https://nowhere.org", "https://169.254.169.254/x", False),
        ("https://public.org", "http://other.org/x", False),
    ],
)
def test_a_proxy_is_given_the_name_and_what_is_known_here_is_looked_at(
    names, registry, to, permitted
):
    base, url = httpx2.URL(registry), httpx2.URL(to)
    if permitted:
        found = asyncio.run(destination(url, registry=base, proxied=True))
        assert (found.url, found.name) == (url, url.host)
        return
    with pytest.raises(RegistryUnavailable):
        asyncio.run(destination(url, registry=base, proxied=True))


@given(st.text())
def test_whatever_a_registry_points_to_is_read_or_refused(text):
    try:
        url = foreign_url(text, base=httpx2.URL("https://registry.example.org/v2/x"))
    except RegistryUnavailable:
        return
    assert url.scheme in {"http", "https"}
    assert not url.userinfo
    assert url.host


# What is kept


def test_what_is_kept_ends_by_time_and_by_number():
    now = 0.0
    kept = Kept(2, lambda: now)
    kept.put("a", 1, 10.0)
    kept.put("b", 2, 20.0)
    now = 9.9
    assert (kept.get("a"), kept.get("b")) == (1, 2)
    now = 10.0
    assert (kept.get("a"), kept.get("b")) == (None, 2)
    kept.put("b", 3, 20.0)
    kept.put("c", 4, 20.0)
    kept.put("d", 5, 20.0)
    assert [kept.get(key) for key in "abcd"] == [None, None, 4, 5]
    kept.drop("d")
    kept.drop("d")
    assert kept.get("d") is None
