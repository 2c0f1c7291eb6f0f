"""Names of images: what settings say, and what is made of them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_training.images.reference import (
    ImageReference,
    Registry,
    is_digest,
    is_loopback,
    parse_host,
    parse_registry,
    parse_tag,
    pipeline_image,
)
from model_training.names import pipeline_fault

# The grammar of the distribution specification, written once more and as a whole.
PART = r"[a-z0-9]+(?:(?:\.|_|__|-*)[a-z0-9]+)*"
LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
HOST = rf"(?:{LABEL}(?:\.{LABEL})*|\[(?:[a-fA-F0-9:.]+)\])(?::[0-9]+)?"
REFERENCE = re.compile(
    rf"(?P<host>{HOST})/{PART}(?:/{PART})*(?::[\w][\w.-]{{0,127}}|@sha256:[0-9a-f]{{64}})", re.ASCII
)

labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
names = st.lists(labels, min_size=2, max_size=4).map(".".join) | st.just("localhost")
ports = st.none() | st.integers(1, 65_535)
hosts = st.builds(lambda name, port: f"{name}:{port}" if port else name, names, ports)
parts = st.from_regex(r"[a-z0-9]{1,6}([._-][a-z0-9]{1,6})?", fullmatch=True)
prefixes = st.lists(parts, max_size=4)
tags = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", fullmatch=True)
pipelines = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,29}[a-z0-9])?", fullmatch=True).filter(
    lambda name: not pipeline_fault(name, path="")
)


@given(hosts, prefixes, pipelines, tags)
def test_an_image_is_made_of_its_parts_and_of_nothing_else(host, prefix, pipeline, tag):
    registry = parse_registry("/".join((host, *prefix)))
    image = pipeline_image(registry, pipeline, parse_tag(tag))
    assert REFERENCE.fullmatch(str(image))
    assert str(image) == "/".join((host, *prefix, f"model-training-{pipeline}")) + f":{tag}"
    assert image.address == host
    pinned = image.pinned("sha256:" + "0" * 64)
    assert REFERENCE.fullmatch(str(pinned))
    assert (pinned.host, pinned.repository) == (image.host, image.repository)


@given(st.text(max_size=80))
def test_whatever_is_accepted_can_be_named(text):
    try:
        registry = parse_registry(text)
    except ValueError:
        return
    assert parse_registry(str(registry)) == registry
    assert REFERENCE.fullmatch(str(pipeline_image(registry, "digits", "v1")))


@given(st.text(max_size=20))
def test_whatever_is_accepted_is_a_tag(text):
    try:
        parse_tag(text)
    except ValueError:
        assert not re.fullmatch(r"\w[\w.-]{0,127}", text, re.ASCII)
    else:
        assert re.fullmatch(r"\w[\w.-]{0,127}", text, re.ASCII)


@pytest.mark.parametrize(
    ("text", "image", "address"),
    [
        ("docker.io", "docker.io/library/model-training-digits:v1", "registry-1.docker.io"),
        ("lea", "docker.io/lea/model-training-digits:v1", "registry-1.docker.io"),
        ("index.docker.io/lea", "docker.io/lea/model-training-digits:v1", "registry-1.docker.io"),
        (
            "registry-1.docker.io/a/b",
            "docker.io/a/b/model-training-digits:v1",
            "registry-1.docker.io",
        ),
        ("localhost", "localhost/model-training-digits:v1", "localhost"),
        ("127.0.0.1:5000", "127.0.0.1:5000/model-training-digits:v1", "127.0.0.1:5000"),
        ("[::1]:5000/a", "[::1]:5000/a/model-training-digits:v1", "[::1]:5000"),
        ("GHCR.io/lea", "ghcr.io/lea/model-training-digits:v1", "ghcr.io"),
        (
            "registry.example.org/",
            "registry.example.org/model-training-digits:v1",
            "registry.example.org",
        ),
    ],
)
def test_a_registry_as_people_write_it(text, image, address):
    made = pipeline_image(parse_registry(text), "digits", "v1")
    assert (str(made), made.address) == (image, address)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "https://registry.example.org",
        "registry.example.org//a",
        "registry.example.org/A",
        "registry.example.org/a:v1",
        "registry.example.org/..",
        "registry.example.org/a@sha256:0",
        "registry.example.org:0",
        "registry.example.org:65536",
        "registry.example.org:x",
        "a b",
        "lea@registry.example.org",
        "-a.example.org",
        "a..b",
        "[::x]:5",
        "[::1",
        "registry.example.org/é",
        "registry.example.org/a--/b",
        "x/" * 100 + "x",
        "registry.example.org/a\n",
    ],
)
def test_what_is_no_registry_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        parse_registry(text)


def test_a_name_of_the_longest_pipeline_still_fits():
    prefix = "x" * 184
    image = pipeline_image(parse_registry(f"a.example/{prefix}"), "p" * 31, "v1")
    assert len(f"{image.host}/{image.repository}") <= 255
    with pytest.raises(ValueError, match="longer than"):
        parse_registry(f"registry.example.org/{prefix}/{prefix}")


@pytest.mark.parametrize(
    ("host", "is_here"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("127.0.0.1:5000", True),
        ("127.9.9.9", True),
        ("[::1]:5000", True),
        ("[::1]", True),
        ("registry.localhost", False),
        ("10.0.0.1", False),
        ("127.0.0.1.example.org", False),
        ("localhost.example.org:80", False),
    ],
)
def test_which_hosts_are_this_machine_by_their_name(host, is_here):
    assert is_loopback(host) is is_here


def test_a_host_as_a_setting():
    assert parse_host("Registry.Example.org:5000") == "registry.example.org:5000"
    for text in ("", "http://x", "x/y", "x:", ":5000"):
        with pytest.raises(ValueError, match="expects a host"):
            parse_host(text)


def test_a_digest_is_told_from_other_text():
    assert is_digest("sha256:" + "0" * 64)
    for text in ("", "sha256:" + "0" * 63, "sha256:" + "G" * 64, "sha512:" + "0" * 64, "x" * 71):
        assert not is_digest(text)


def test_an_image_by_tag_and_by_digest():
    image = ImageReference("registry.example.org", "a/b", "v1")
    assert image.target == "v1"
    assert image.pinned("sha256:0").target == "sha256:0"
    assert str(Registry("registry.example.org", ("a", "b"))) == "registry.example.org/a/b"
