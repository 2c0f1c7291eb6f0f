"""A kubeconfig that does not do: ``serve`` and ``doctor`` name file, reason and way out."""

import asyncio
import base64
import json
import os
import subprocess
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.service import NOT_READY, findings, ran, service
from tests.unit.fake_api_server import fake_api_server, no, text
from tests.waiting import until

pytestmark = pytest.mark.anyio

SECRET = "s3cret-t0ken"
NOBODY = "https://127.0.0.1:1"  # no port of a user; the connection is refused


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def content(user: Mapping[str, Any] | None = None, **cluster: Any) -> dict[str, Any]:
    return {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "here"}}],
        "clusters": [{"name": "here", "cluster": {"server": NOBODY, **cluster}}],
        "users": [{"name": "here", "user": dict(user or {"token": SECRET})}],
    }


def garbage(text: str = SECRET) -> str:
    return base64.b64encode(text.encode()).decode()


WRONG: dict[str, tuple[str | dict[str, Any], str]] = {
    "no YAML": (f"users: [{SECRET}", "line 1: this is not YAML"),
    "an alias": (f"token: *{SECRET}\n", "line 1: this is not YAML."),
    "another file": (f"- {SECRET}\n", "is no kubeconfig: Expected `object`, got `array`"),
    "empty": ("", "has no current-context"),
    "wrong context": (
        content() | {"current-context": "there"},
        "names the context 'there', which is not there. There are: here",
    ),
    "no such user": (content() | {"users": []}, "names the user 'here', which is not there"),
    "no address": (content(server="here:6443"), "the server must be a URL like https://HOST:6443"),
    "broken authority": (
        content(**{"certificate-authority-data": garbage()}),
        "cluster 'here' in context 'here' of ",
    ),
    "absent authority": (
        content(**{"certificate-authority": "/nowhere/ca.crt"}),
        "certificate-authority /nowhere/ca.crt cannot be read: No such file or directory",
    ),
    "broken certificate": (
        content({"client-certificate-data": garbage(), "client-key-data": garbage()}),
        "user 'here' in context 'here' of ",
    ),
    "absent plugin": (
        content({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "absent-1"}}),
        "its credential plugin 'absent-1' is not there",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_stops_the_start_with_one_sentence(name: str, tmp_path: Path):
    written, said = WRONG[name]
    file = tmp_path / "kubeconfig"
    file.write_text(written if isinstance(written, str) else yaml.safe_dump(written))
    options = ["--executor", "kubernetes", "--kubeconfig", str(file)]
    served = ran(tmp_path, "serve", "--port", "0", "--registry", "127.0.0.1:1", *options)
    assert served.returncode == 1
    assert said in served.stderr
    assert str(file) in served.stderr
    assert "Traceback" not in served.stderr
    [found] = findings(tmp_path, "--kubeconfig", str(file))
    assert (found["level"], found["what"]) == ("fail", "cluster")
    assert said in found["found"]
    assert "--kubeconfig" in found["way_out"]
    for told in (served.stderr, served.stdout, json.dumps(found)):
        assert SECRET not in told
        assert garbage() not in told


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    file = tmp_path / "absent"
    options = ["--executor", "kubernetes", "--kubeconfig", str(file)]
    served = ran(tmp_path, "serve", "--port", "0", "--registry", "127.0.0.1:1", *options)
    assert (served.returncode, served.stdout) == (1, "")
    assert f"There is no kubeconfig file {file}" in served.stderr
    [found] = findings(tmp_path, "--kubeconfig", str(file))
    assert f"There is no kubeconfig file {file}" in found["found"]


def test_the_doctor_finds_the_executor_in_the_settings(tmp_path: Path):
    file = tmp_path / "absent"
    told = {"MODEL_TRAINING_EXECUTOR": "kubernetes", "MODEL_TRAINING_KUBECONFIG": str(file)}
    done = ran(tmp_path, "doctor", "--json", **told)
    found = {each["what"]: each for each in json.loads(done.stdout)}
    assert done.returncode == 1
    assert str(file) in found["cluster"]["found"]
    assert "CPUs" not in found
    wrong = ran(tmp_path, "doctor", MODEL_TRAINING_PORT="many")
    assert wrong.returncode == 1
    assert "fail  settings: The setting port" in wrong.stdout


Case = tuple[Path, str]
"""a kubeconfig, and what is said of it"""


async def waits(file: Path, folder: Path, said: str) -> None:
    """It starts, is not ready, says why once, goes on; and doctor says the same."""
    async with service(folder, "--kubeconfig", str(file), "--registry", "127.0.0.1:1") as running:
        [line] = await until(running.obstacles, within=20)
        assert await running.readyz() == (503, NOT_READY)
        assert said in line
        assert str(file) in line
        assert "start the service again" in line
        refused = await running.client.post("/training-jobs?pipeline=p", json={})
        assert refused.status_code == 503
        assert (await running.client.get("/livez")).status_code == 200
        log = running.log()
    assert SECRET not in log
    assert "Traceback" not in log
    [found] = await asyncio.to_thread(findings, folder, "--kubeconfig", str(file))
    assert (found["level"], found["what"]) == ("fail", "cluster")
    assert said in found["found"]
    assert str(file) in found["found"]
    assert SECRET not in json.dumps(found)


def write(folder: Path, written: dict[str, Any]) -> Path:
    file = folder / "kubeconfig"
    file.write_text(yaml.safe_dump(written))
    return file


@asynccontextmanager
async def nobody(folder: Path) -> AsyncGenerator[Case]:
    said = f"The API server {NOBODY} cannot be asked now: {os.strerror(111)}."
    yield write(folder, content()), said


@asynccontextmanager
async def ended_login(folder: Path) -> AsyncGenerator[Case]:
    async with fake_api_server(no(401, "Unauthorized", "Unauthorized")) as server:
        file = write(folder, content(server=server.url))
        yield file, f"{server.url} does not accept our credentials"


@asynccontextmanager
async def unknown_user(folder: Path) -> AsyncGenerator[Case]:
    message = 'User "system:anonymous" cannot create resource "selfsubjectaccessreviews"'
    async with fake_api_server(no(403, "Forbidden", message)) as server:
        file = write(folder, content(server=server.url))
        yield file, f"answers 403 when asked what we may do: {message}"


@asynccontextmanager
async def other_web_server(folder: Path) -> AsyncGenerator[Case]:
    async with fake_api_server(text(200, "<html>hello</html>")) as server:
        yield write(folder, content(server=server.url)), "is that a Kubernetes?"


@asynccontextmanager
async def other_authority(folder: Path) -> AsyncGenerator[Case]:
    """The one named did not sign what the server shows."""
    argv = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    for name in ("server", "other"):
        words = [*argv.split(), "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"]
        files = ["-keyout", f"{name}.key", "-out", f"{name}.pem"]
        subprocess.run([*words, *files], cwd=folder, check=True, capture_output=True)
    serving = ["openssl", "s_server", "-accept", "127.0.0.1:0", "-www"]
    pair = ["-cert", "server.pem", "-key", "server.key"]
    with subprocess.Popen(
        [*serving, *pair], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            accepting = next(line for line in process.stdout if line.startswith("ACCEPT"))
            url = f"https://127.0.0.1:{accepting.rsplit(':', 1)[1].strip()}"
            authority = {"certificate-authority": "other.pem"}
            yield write(folder, content(server=url, **authority)), "its certificate is not trusted"
        finally:
            process.kill()


async def test_what_is_in_the_way_is_told_and_waited_for(tmp_path: Path):
    """All at once: each refusal of a POST takes the five seconds that a cluster is given."""

    async def play(case: Callable[[Path], AbstractAsyncContextManager[Case]]) -> None:
        folder = tmp_path / case.__name__
        folder.mkdir()
        async with case(folder) as (file, said):
            await waits(file, folder, said)

    async with asyncio.TaskGroup() as tasks:
        for case in (nobody, ended_login, unknown_user, other_web_server, other_authority):
            tasks.create_task(play(case))
