"""What ``serve`` is told of registries: by options, and by the environment as other tools are.

The cluster is away in all of them: a pipeline is looked up without it.
"""

import json

import pytest
import yaml

from tests.cluster.images.http_proxy import http_proxy
from tests.cluster.service import ran, service

pytestmark = pytest.mark.anyio

SECRET = "s3cret"
NAME = "registry.invalid"


@pytest.fixture
def options(tmp_path):
    """Of ``serve``, all but the registry."""
    file = tmp_path / "kubeconfig"
    context = {"name": "x", "context": {"cluster": "x", "user": "x"}}
    plain = {
        "current-context": "x",
        "contexts": [context],
        "clusters": [{"name": "x", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "x", "user": {"token": "none"}}],
    }
    file.write_text(yaml.safe_dump(plain))
    return ["--kubeconfig", str(file)]


@pytest.mark.parametrize(
    ("more", "variables", "said"),
    [
        (
            ["--insecure-registry", "http://registry.example.org"],
            {},
            "The setting insecure_registry: expects a host such as registry.example.org:5000, "
            "got 'http://registry.example.org'",
        ),
        (["--insecure-registry", "a.org:0"], {}, "got 'a.org:0'"),
        (["--insecure-registry", "a.org/team"], {}, "got 'a.org/team'"),
        (["--insecure-registry", "*.a.org"], {}, "got '*.a.org'"),
        (["--insecure-registry", "fd00::1"], {}, "got 'fd00::1'"),
        ([], {"MODEL_TRAINING_INSECURE_REGISTRY": "a.org,,b.org"}, "got ''"),
        (["--registry", "http://a.org"], {}, "The setting registry: is written without a scheme"),
        (
            [],
            {"https_proxy": f"socks5://lea:{SECRET}@a.org:1080"},
            "The registry registry.invalid cannot be asked: the variable https_proxy names no "
            "HTTP proxy (http://HOST:PORT); others are not spoken.",
        ),
    ],
    ids=range(8),
)
def test_nonsense_stops_the_start_with_one_sentence(tmp_path, options, more, variables, said):
    argv = ["serve", "--port", "0", "--executor", "kubernetes", "--registry", NAME]
    done = ran(tmp_path, *argv, *options, *more, **variables)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert SECRET not in done.stderr


@pytest.mark.parametrize("named", ["option", "variable"])
async def test_a_login_of_the_setting_or_of_docker_config(
    named, closed_registry, push, docker_config, options, tmp_path
):
    digest = push.image("model-training-digits")
    config = docker_config(closed_registry.host)
    variables = {
        "option": {"MODEL_TRAINING_REGISTRY_CONFIG": str(config), "DOCKER_CONFIG": "/nowhere"},
        "variable": {"DOCKER_CONFIG": str(tmp_path)},
    }[named]
    registry = ["--registry", closed_registry.host]
    async with service(tmp_path / "at", *options, *registry, **variables) as running:
        answer = await running.client.get("/pipelines/digits")
        assert answer.json()["image"] == f"{closed_registry.host}/model-training-digits@{digest}"


async def test_a_docker_config_that_is_not_there_is_told(closed_registry, options, tmp_path):
    registry = ["--registry", closed_registry.host]
    variables = {"DOCKER_CONFIG": str(tmp_path)}
    async with service(tmp_path / "at", *options, *registry, **variables) as running:
        answer = await running.client.get("/pipelines/digits")
        assert answer.status_code == 503
        reason = f"The docker config {tmp_path}/config.json cannot be read: No such file"
        assert reason in answer.json()["detail"]


async def test_the_proxy_of_the_environment(open_registry, push, options, tmp_path):
    digest = push.image("model-training-digits")
    host = f"{NAME}:{open_registry.port}"
    registry = ["--registry", host, "--insecure-registry", NAME.upper()]
    async with http_proxy(f"lea:{SECRET}") as proxy:
        at = tmp_path / "at"
        async with service(at, *options, *registry, HTTP_PROXY=proxy.url) as running:
            answer = await running.client.get("/pipelines/digits")
            assert answer.json()["image"] == f"{host}/model-training-digits@{digest}"
            await proxy.end()
            proxy.login = "lea:another"
            answer = await running.client.get("/pipelines/missing")
            assert answer.status_code == 503
            assert SECRET not in json.dumps(answer.json()) + running.log()
    assert proxy.asked
