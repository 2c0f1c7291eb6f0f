"""Which cluster, and who we are there: as kubectl has it, and never a secret in a message."""

import base64
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from model_training.errors import ExecutorUnavailable, SettingsError
from model_training.executors.kubernetes import credential_plugin, credentials
from model_training.executors.kubernetes.cluster import ClusterConfig, tls_of
from model_training.executors.kubernetes.credentials import Grant
from model_training.executors.kubernetes.kubeconfig import load_cluster
from tests.waiting import until

pytestmark = pytest.mark.anyio

SECRET = "s3cret-t0ken"
SERVER = "https://cluster.example:6443"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A certificate, which is its own authority, and its key."""
    folder = tmp_path_factory.mktemp("pem")
    argv = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=us"
        " -keyout key.pem -out certificate.pem"
    )
    subprocess.run(argv.split(), cwd=folder, check=True, capture_output=True)
    return (folder / "certificate.pem").read_text(), (folder / "key.pem").read_text()


def content(
    user: Mapping[str, Any],
    cluster: Mapping[str, Any] | None = None,
    name: str = "here",
    **context: str,
) -> dict[str, Any]:
    return {
        "current-context": name,
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, **context}}],
        "clusters": [{"name": name, "cluster": {"server": SERVER, **(cluster or {})}}],
        "users": [{"name": name, "user": dict(user)}],
    }


def write(path: Path, what: Mapping[str, Any] | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(what if isinstance(what, str) else yaml.safe_dump(dict(what)))
    return path


def load(path: Path, environ: Mapping[str, str] | None = None) -> ClusterConfig:
    return load_cluster(path, environ=environ or {})


def refused(path: Path, environ: Mapping[str, str] | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        load(path, environ)
    assert SECRET not in str(caught.value)
    return str(caught.value)


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


async def test_a_context_names_server_user_and_namespace(tmp_path: Path) -> None:
    path = write(tmp_path / "config", content({"token": SECRET}, namespace="training"))
    config = load(path)
    assert config.server == SERVER
    assert config.namespace == "training"
    assert config.context == "here"
    assert config.origin == f"context 'here' of {path}"
    assert await config.credentials.grant() == Grant(SECRET)
    assert SECRET not in repr(config) + repr(await config.credentials.grant())


def test_the_namespace_is_default_if_none_is_named(tmp_path: Path) -> None:
    assert load(write(tmp_path / "config", content({}))).namespace == "default"


async def test_the_first_file_that_has_a_name_wins(tmp_path: Path) -> None:
    one = content({"token": "one"})
    two = content({"token": "two"}, {"server": "https://two"})
    del one["current-context"], one["clusters"]
    paths = [tmp_path / "absent", write(tmp_path / "one", one), write(tmp_path / "two", two)]
    config = load_cluster(environ={"KUBECONFIG": ":".join(map(str, paths))})
    assert await config.credentials.grant() == Grant("one")
    assert config.server == "https://two"


def test_without_settings_the_usual_file_is_read_then_the_pod(tmp_path: Path, pem: Any) -> None:
    pod = tmp_path / "pod"
    environ = {
        "HOME": str(tmp_path),
        "KUBERNETES_SERVICE_HOST": "fd00::1",
        "KUBERNETES_SERVICE_PORT": "6443",
    }
    with pytest.raises(SettingsError, match="--kubeconfig"):
        load_cluster(environ=environ, pod_folder=pod)
    write(pod / "token", SECRET)
    write(pod / "namespace", "training\n")
    write(pod / "ca.crt", pem[0])
    config = load_cluster(environ=environ, pod_folder=pod)
    assert config.server == "https://[fd00::1]:6443"
    assert config.namespace == "training"
    assert config.context is None
    write(tmp_path / ".kube" / "config", content({}))
    assert load_cluster(environ=environ, pod_folder=pod).server == SERVER


async def test_certificates_are_given_in_place_or_as_files_beside_it(
    tmp_path: Path, pem: tuple[str, str]
) -> None:
    certificate, key = pem
    write(tmp_path / "ca.crt", certificate)
    write(tmp_path / "me.key", key)
    user = {"client-certificate-data": encoded(certificate), "client-key": "me.key"}
    cluster = {"certificate-authority": "ca.crt", "tls-server-name": "inside"}
    config = load(write(tmp_path / "config", content(user, cluster)))
    grant = await config.credentials.grant()
    assert grant.certificate is not None
    assert (grant.certificate.certificate, grant.certificate.key) == pem
    assert config.trust.authorities == certificate
    assert config.trust.server_name == "inside"
    assert len(tls_of(config.trust, grant.certificate).get_ca_certs()) == 1
    assert key not in repr(config) + repr(grant) + repr(grant.certificate)


def test_verification_is_left_out_only_where_asked(tmp_path: Path) -> None:
    config = load(write(tmp_path / "config", content({}, {"insecure-skip-tls-verify": True})))
    context = tls_of(config.trust, None)
    assert not context.check_hostname
    assert tls_of(load(write(tmp_path / "other", content({}))).trust, None).check_hostname


@pytest.mark.parametrize(
    ("user", "cluster", "said"),
    [
        ({"auth-provider": {"name": "gcp", "config": {"t": SECRET}}}, {}, "credential plugin"),
        ({"username": "u", "password": SECRET}, {}, "no longer part of Kubernetes"),
        ({"token": f"{SECRET}\nX: y"}, {}, "token is not one line"),
        ({"client-key-data": encoded(SECRET)}, {}, "one is missing"),
        ({"client-key-data": SECRET + "!"}, {}, "client-key-data is not PEM"),
        ({"client-certificate": "no.crt"}, {}, "no.crt cannot be read: No such file"),
        ({}, {"certificate-authority-data": encoded("x")}, "authority cannot be used"),
        ({}, {"server": f"https://u:{SECRET}@host"}, "server must be a URL"),
        ({}, {"server": "cluster:6443"}, "server must be a URL"),
        ({}, {"proxy-url": f"socks5://u:{SECRET}@host"}, "proxy-url names no HTTP proxy"),
        ({"exec": {"command": "no-such", "apiVersion": "v1"}}, {}, "exec.apiVersion must be"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(
    tmp_path: Path, user: dict[str, Any], cluster: dict[str, Any], said: str
) -> None:
    path = write(tmp_path / "config", content(user, cluster))
    message = refused(path)
    assert said in message
    assert f"context 'here' of {path}" in message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"users: [{{name: x, user: {{token: '{SECRET}'}}", "line 1: this is not YAML"),
        (f"token: {SECRET}\x00", "this is not YAML"),
        (f"users: {SECRET}", r"`array | null`, got `str` - at `$.users`"),
        ("contexts: []", "has no current-context"),
        ("current-context: gone", "names the context 'gone', which is not there"),
    ],
)
def test_a_file_that_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path / "config", text)
    message = refused(path)
    assert said in message
    assert str(path) in message


def test_a_file_that_is_absent_is_named(tmp_path: Path) -> None:
    assert f"no kubeconfig file {tmp_path / 'absent'}" in refused(tmp_path / "absent")
    with pytest.raises(SettingsError, match=r"KUBECONFIG names .*absent, and there is no such"):
        load_cluster(environ={"KUBECONFIG": str(tmp_path / "absent")})


def test_the_proxy_is_the_named_one_or_that_of_the_environment(tmp_path: Path) -> None:
    environ = {"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "10.0.0.0/8, .inside"}
    path = tmp_path / "config"

    def proxy_of(server: str, **cluster: str) -> str | None:
        return load(write(path, content({}, {"server": server, **cluster})), environ).proxy

    assert proxy_of(SERVER) == "http://proxy:3128"
    assert proxy_of(SERVER, **{"proxy-url": "http://other:1"}) == "http://other:1"
    assert proxy_of("https://10.1.2.3:6443") is None
    assert proxy_of("https://a.inside") is None
    assert proxy_of("https://ainside") == "http://proxy:3128"
    assert proxy_of("https://127.0.0.1:6443") is None
    assert load(write(path, content({}))).proxy is None


async def test_a_token_file_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "token", "one\n")
    path = write(tmp_path / "config", content({"tokenFile": "token", "token": "older"}))
    who = load(path).credentials
    first = await who.grant()
    assert first == Grant("one")
    file.write_text("two\n")
    assert await who.grant() == first  # for a minute
    assert await who.renew(first) == Grant("two")
    file.write_text("three\n")
    monkeypatch.setattr(credentials, "TOKEN_FILE_S", 0.0)
    assert await who.grant() == Grant("three")
    file.write_text(f"{SECRET}\n{SECRET}")
    with pytest.raises(ExecutorUnavailable, match="holds no token") as caught:
        await who.grant()
    assert SECRET not in str(caught.value)
    file.unlink()
    with pytest.raises(ExecutorUnavailable, match="cannot be read: No such file"):
        await who.grant()


# Credential plugins.


def plugin(folder: Path, body: str, **entry: Any) -> Path:
    """A kubeconfig whose plugin is a Python program; it may append to the file ``runs``."""
    program = write(folder / "login", f"#!{sys.executable}\nimport json, os, sys\n{body}")
    program.chmod(0o700)
    version = "client.authentication.k8s.io/v1"
    exec_entry = {"command": "./login", "apiVersion": version, **entry}
    return write(folder / "config", content({"exec": exec_entry}))


PRINT = """
folder = os.path.dirname(__file__)
with open(folder + "/runs", "a") as runs:
    runs.write("x")
info = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
token = f"token-{os.path.getsize(folder + '/runs')}-{os.environ.get('EXTRA', '')}"
status = {"token": token, "expirationTimestamp": os.environ.get("ENDS", "2999-01-01T00:00:00Z")}
print(json.dumps({"kind": "ExecCredential", "apiVersion": info["apiVersion"], "status": status}))
"""


async def test_a_plugin_is_run_once_until_its_token_ends(tmp_path: Path) -> None:
    who = load(plugin(tmp_path, PRINT, env=[{"name": "EXTRA", "value": "e"}])).credentials
    first = await who.grant()
    assert first == Grant("token-1-e")
    assert await who.grant() == first
    assert await who.renew(first) == Grant("token-2-e")
    assert await who.renew(first) == Grant("token-2-e")  # somebody else had it renewed


async def test_a_token_that_ends_soon_is_renewed_before(tmp_path: Path) -> None:
    ends = [{"name": "ENDS", "value": "2020-01-01T00:00:00Z"}]
    who = load(plugin(tmp_path, PRINT, env=ends)).credentials
    assert await who.grant() == Grant("token-1-")
    assert await who.grant() == Grant("token-2-")


async def test_a_plugin_is_told_of_the_cluster_where_it_wants_that(tmp_path: Path) -> None:
    body = """
info = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
assert info["spec"]["interactive"] is False
token = info["spec"]["cluster"]["server"]
print(json.dumps({"apiVersion": info["apiVersion"], "status": {"token": token}}))
"""
    who = load(plugin(tmp_path, body, provideClusterInfo=True)).credentials
    assert await who.grant() == Grant(SERVER)


async def test_a_plugin_may_print_a_certificate(tmp_path: Path, pem: tuple[str, str]) -> None:
    write(tmp_path / "pem.py", f"CERTIFICATE, KEY = {pem!r}")
    body = """
sys.path.insert(0, os.path.dirname(__file__))
import pem
status = {"clientCertificateData": pem.CERTIFICATE, "clientKeyData": pem.KEY}
print(json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "status": status}))
"""
    grant = await load(plugin(tmp_path, body)).credentials.grant()
    assert grant.certificate is not None
    assert (grant.certificate.certificate, grant.certificate.key) == pem


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (f"print('{SECRET}')", "did not print an ExecCredential"),
        ("print(json.dumps({'apiVersion': 'v9'}))", "another version"),
        (
            "print(json.dumps({'apiVersion': 'client.authentication.k8s.io/v1'}))",
            "neither a token nor a certificate",
        ),
        ("sys.exit('y' * 5000 + ': log in first')", "ended with 1, and said why"),
        ("sys.exit(1)", "ended with 1."),
    ],
)
async def test_a_plugin_that_fails_says_why(tmp_path: Path, body: str, said: str) -> None:
    who = load(plugin(tmp_path, body, installHint="Ask Ada.")).credentials
    with pytest.raises(ExecutorUnavailable) as caught:
        await who.grant()
    message = str(caught.value)
    assert said in message
    assert message.endswith("Ask Ada.")
    assert SECRET not in message
    assert len(message) < 800


def test_a_plugin_shows_nothing_that_it_is_given() -> None:
    shown = credential_plugin.Plugin(
        command="login", args=(SECRET,), env={"KEY": SECRET}, api_version="v1", cluster=None,
        install_hint="",
    )  # fmt: skip
    assert repr(shown) == "Plugin('login')"


async def test_what_a_plugin_complains_of_is_for_the_log_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token = "eyJhbGciOiJFUzI1NiJ9.e30.MEUCIQDw-_x"
    url = "https://login.example.org/device"
    words = f"AADSTS70043: the token {token} has ended, key={token[:30]}; log in: {url}"
    who = load(plugin(tmp_path, f"sys.exit({words!r})")).credentials
    for _ in range(3):
        with pytest.raises(ExecutorUnavailable) as caught:
            await who.grant()
        assert "AADSTS" not in str(caught.value)
        assert token[:10] not in str(caught.value)
    [record] = caplog.records
    said = record.getMessage()
    assert said.endswith(f"AADSTS70043: the token ... has ended, ...; log in: {url}")


async def test_a_plugin_that_never_ends_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credential_plugin, "RUN_S", 0.5)
    body = """
import pathlib, signal
pathlib.Path(__file__).with_name("pid").write_text(str(os.getpid()))
signal.pause()
"""
    who = load(plugin(tmp_path, body)).credentials
    with pytest.raises(ExecutorUnavailable, match="did not end"):
        await who.grant()
    pid = (tmp_path / "pid").read_text()
    await until(lambda: not Path("/proc", pid).exists())


def test_a_plugin_that_is_absent_or_asks_questions_is_refused(tmp_path: Path) -> None:
    path = plugin(tmp_path, PRINT, interactiveMode="Always")
    assert "cannot answer questions" in refused(path)
    path = plugin(tmp_path, PRINT, installHint="Install it from X.")
    (tmp_path / "login").unlink()
    message = refused(path)
    assert "is not there. Install it from X." in message
