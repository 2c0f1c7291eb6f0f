"""Logins in a docker config, found as docker and the kubelet find them."""

import base64
import json

import pytest

from model_training.errors import SettingsError
from model_training.images.credentials import CONFIG_LIMIT, DockerConfig, Login


def auth(name, password="pw"):
    return {"auth": base64.b64encode(f"{name}:{password}".encode()).decode()}


@pytest.fixture
def config(tmp_path):
    def write(**tables):
        file = tmp_path / "config.json"
        file.write_text(json.dumps(tables))
        return DockerConfig(file)

    return write


@pytest.mark.parametrize(
    ("key", "host", "repository", "fits"),
    [
        ("registry.example.org", "registry.example.org", "a", True),
        ("https://registry.example.org", "registry.example.org", "a", True),
        ("http://registry.example.org/", "registry.example.org", "a", True),
        ("https://registry.example.org/v2/", "registry.example.org", "a", True),
        ("REGISTRY.example.org", "registry.example.org", "a", True),
        ("registry.example.org:5000", "registry.example.org:5000", "a", True),
        ("registry.example.org", "registry.example.org:5000", "a", False),
        ("registry.example.org:5000", "registry.example.org", "a", False),
        ("registry.example.org/team", "registry.example.org", "team/a", True),
        ("registry.example.org/team", "registry.example.org", "teams/a", False),
        ("registry.example.org/team/a/b", "registry.example.org", "team/a", False),
        ("*.example.org", "registry.example.org", "a", True),
        ("*.example.org", "a.registry.example.org", "a", False),
        ("*.example.org", "example.org", "a", False),
        ("https://*.example.org:5000/team", "registry.example.org:5000", "team/a", True),
        ("https://index.docker.io/v1/", "docker.io", "lea/a", True),
        ("docker.io", "docker.io", "lea/a", True),
        ("registry-1.docker.io", "docker.io", "lea/a", True),
        ("[::1]:5000", "[::1]:5000", "a", True),
        ("evil.org/registry.example.org", "registry.example.org", "a", False),
        ("registry.example.org.evil.org", "registry.example.org", "a", False),
        ("", "registry.example.org", "a", False),
    ],
)
def test_which_images_a_key_is_for(config, key, host, repository, fits):
    found = config(auths={key: auth("lea")}).login(host, repository)
    assert found == (Login("lea", "pw") if fits else None)


def test_the_closest_key_counts(config):
    logins = config(
        auths={
            "*.example.org": auth("wild"),
            "registry.example.org": auth("host"),
            "registry.example.org/team": auth("team"),
        }
    )
    assert logins.login("other.example.org", "a").username == "wild"
    assert logins.login("registry.example.org", "a").username == "host"
    assert logins.login("registry.example.org", "team/a").username == "team"


def test_every_way_to_write_a_login(config):
    logins = config(
        auths={
            "a.org": auth("lea", "with:colon"),
            "b.org": {"username": "lea", "password": "ü"},
            "c.org": {**auth("lea", ""), "identitytoken": "t"},
            "d.org": {"identitytoken": "t"},
            "e.org": {},
        }
    )
    assert logins.login("a.org", "x") == Login("lea", "with:colon")
    assert (
        base64.b64decode(logins.login("b.org", "x").basic.removeprefix("Basic "))
        == "lea:ü".encode()
    )
    assert logins.login("c.org", "x") == Login("lea", "", "t")
    assert logins.login("d.org", "x").identity_token == "t"
    assert logins.login("e.org", "x") is None
    assert "with:colon" not in repr(logins.login("a.org", "x"))


def test_a_file_that_changes_is_read_again(config, tmp_path):
    logins = config(auths={"a.org": auth("lea")})
    assert logins.login("a.org", "x").username == "lea"
    later = tmp_path / "later"
    later.write_text(json.dumps({"auths": {"a.org": auth("leo")}}))
    later.replace(logins.path)  # as a mounted Secret is
    assert logins.login("a.org", "x").username == "leo"


@pytest.mark.parametrize(
    ("tables", "name"),
    [
        ({"credsStore": "desktop"}, "credsStore"),
        ({"credsStore": "desktop", "auths": {"a.org": {}}}, "credsStore"),
        ({"credHelpers": {"a.org": "gcloud"}}, "credHelpers"),
    ],
)
def test_a_program_is_never_started_for_a_login(config, tables, name):
    with pytest.raises(
        SettingsError, match=rf"leaves the login for a\.org to a program \({name}\)"
    ):
        config(**tables).login("a.org", "x")


def test_a_program_for_another_registry_is_in_nobodys_way(config):
    logins = config(auths={"a.org": auth("lea")}, credHelpers={"b.org": "gcloud"})
    assert logins.login("a.org", "x") == Login("lea", "pw")
    assert logins.login("c.org", "x") is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is no JSON"),
        (b'{"auths": s3cret}', "is no JSON"),
        (b"\xff", "is no JSON"),
        (b"[" * 100_000, "is no JSON"),
        (b'["s3cret"]', "is no JSON object"),
        (b'{"auths": "s3cret"}', "has no object at auths"),
        (b'{"auths": {"a.org": "s3cret"}}', "has no object at auths, 'a.org'"),
        (b'{"auths": {"a.org": {"auth": ["s3cret"]}}}', "has no text at auths, 'a.org', auth"),
        (b'{"auths": {"a.org": {"auth": "s3cret!"}}}', "that is no base64 of NAME:PASSWORD"),
        (b'{"auths": {"a.org": {"auth": "czNjcmV0"}}}', "that is no base64 of NAME:PASSWORD"),
        (b'{"auths": {"a.org": {"auth": "/w=="}}}', "that is no base64 of NAME:PASSWORD"),
        (b" " * (CONFIG_LIMIT + 1), "is larger than"),
    ],
    ids=range(12),
)
def test_a_broken_file_is_told_and_nothing_of_what_it_holds(tmp_path, content, words):
    file = tmp_path / "config.json"
    file.write_bytes(content)
    with pytest.raises(SettingsError) as refusal:
        DockerConfig(file).login("a.org", "x")
    assert words in refusal.value.message
    assert str(file) in refusal.value.message
    assert "s3cret" not in refusal.value.message


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        DockerConfig(tmp_path / "config.json").login("a.org", "x")


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(SettingsError, match="cannot be read: Is a directory"):
        DockerConfig(tmp_path).login("a.org", "x")
