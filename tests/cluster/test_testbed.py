"""The test cluster itself: it is well, runs Jobs, pulls from both registries, notices faults."""

import json
import subprocess
from pathlib import Path

import pytest

from testbed import cri, images
from testbed.cluster import DIGITS, LOGIN_REGISTRY, Cluster
from testbed.errors import ClusterError
from testbed.registries import LOGIN
from tests.cluster.conftest import Kubectl
from tests.cluster.pods import job

ROOT = Path(__file__).parents[2]


def status() -> tuple[int, dict]:
    argv = [ROOT / "testbed/status", "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.returncode, json.loads(done.stdout)


def run_to_end(kubectl: Kubectl, namespace: str, wanted: dict) -> tuple[int, str]:
    """Run a Job; the exit code of its container, and its log."""
    name = wanted["metadata"]["name"]
    kubectl("-n", namespace, "create", "-f", "-", given=wanted)
    ended = "jsonpath={.status.conditions[?(@.status=='True')].type}"
    kubectl("-n", namespace, "wait", f"job/{name}", f"--for={ended}", "--timeout=60s")
    (pod,) = json.loads(
        kubectl("-n", namespace, "get", "pods", "-l", f"job-name={name}", "-o", "json")
    )["items"]
    (container,) = pod["status"]["containerStatuses"]
    log = kubectl("-n", namespace, "logs", pod["metadata"]["name"])
    return container["state"]["terminated"]["exitCode"], log


def test_everything_is_well(cluster: Cluster):
    code, told = status()
    assert code == 0
    assert told["ok"]
    assert set(told["components"]) == set(cluster.components())


def test_up_again_changes_nothing(cluster: Cluster):
    before = status()[1]["components"]
    done = subprocess.run([ROOT / "testbed/up"], capture_output=True, text=True, check=True)
    assert done.stdout == f"{cluster.kubeconfig}\n"
    assert status()[1]["components"] == before


def test_a_pipeline_of_the_project_runs(kubectl: Kubectl, namespace: str, registry: str):
    wanted = job("digits", f"{registry}/model-training-digits:latest")
    variable = {"name": "MODEL_TRAINING_PARAMETERS", "value": '{"epochs": 1}'}
    wanted["spec"]["template"]["spec"]["containers"][0]["env"] = [variable]
    code, log = run_to_end(kubectl, namespace, wanted)
    assert code == 0
    assert "test accuracy" in log


def test_a_failed_job_keeps_its_exit_code(kubectl: Kubectl, namespace: str, registry: str):
    image = f"{registry}/model-training-base:latest"
    command = ["sh", "-c", "seq 2; exit 7"]
    assert run_to_end(kubectl, namespace, job("fails", image, command)) == (7, "1\n2\n")


def test_a_pod_reaches_the_api_by_the_address_of_its_service(
    kubectl: Kubectl, namespace: str, registry: str
):
    ask = (
        "import ssl, urllib.request as r; c = ssl._create_unverified_context(); "
        "print(r.urlopen('https://kubernetes.default.svc/version', context=c).status)"
    ).replace("kubernetes.default.svc", "10.96.0.1")
    image = f"{registry}/model-training-base:latest"
    wanted = job("asks", image, ["python3", "-c", ask])
    assert run_to_end(kubectl, namespace, wanted) == (0, "200\n")


def test_a_shell_of_the_base_image_traps_signals(kubectl: Kubectl, namespace: str, registry: str):
    # 1 is the shell: Kubernetes would write $ for $$.
    script = 'trap "echo caught; exit 3" TERM; setsid sleep 100 & kill -TERM 1; wait'
    image = f"{registry}/model-training-base:latest"
    wanted = job("traps", image, ["sh", "-c", script])
    assert run_to_end(kubectl, namespace, wanted) == (3, "caught\n")


def test_too_much_memory_is_said_to_be_that(kubectl: Kubectl, namespace: str, registry: str):
    image = f"{registry}/model-training-base:latest"
    wanted = job("oom", image, ["python3", "-c", "bytearray(300 << 20)"])
    container = wanted["spec"]["template"]["spec"]["containers"][0]
    container["resources"] = {"limits": {"memory": "60Mi"}}
    assert run_to_end(kubectl, namespace, wanted)[0] == 137


def test_the_registry_with_a_login_refuses_without(
    kubectl: Kubectl, namespace: str, cluster: Cluster
):
    with pytest.raises(ClusterError, match="401"):
        images.push(images.base(), "model-training-base", LOGIN_REGISTRY)
    cluster.push(images.base(), "model-training-base", LOGIN_REGISTRY)
    user, password = LOGIN
    kubectl(
        "-n", namespace, "create", "secret", "docker-registry", "login",
        f"--docker-server={LOGIN_REGISTRY}", f"--docker-username={user}",
        f"--docker-password={password}",
    )  # fmt: skip
    image = f"{LOGIN_REGISTRY}/model-training-base:latest"
    wanted = job("login", image, ["echo", "in"], imagePullSecrets=[{"name": "login"}])
    assert run_to_end(kubectl, namespace, wanted) == (0, "in\n")


def test_an_image_is_the_same_every_time(cluster: Cluster):
    argv = [ROOT / "testbed/image", "model-training-again:1", DIGITS, "--label=a=b"]
    first, second = (
        subprocess.run(argv, capture_output=True, text=True, check=True).stdout for _ in range(2)
    )
    assert first == second
    assert first.startswith("127.0.0.1:5000/model-training-again:1@sha256:")


def test_a_folder_that_is_no_pipeline_makes_no_image(tmp_path: Path):
    with pytest.raises(ClusterError, match=r"no pipeline\.toml"):
        images.pipeline(tmp_path)


def test_the_labels_of_an_image_tell_its_parameters():
    labels = images.pipeline(DIGITS, {"a": "b"}).config["Labels"]
    assert json.loads(labels["model-training.parameters"])["epochs"]["default"] == 20
    assert labels["a"] == "b"


def test_a_component_that_ended_is_noticed_and_started_again(cluster: Cluster):
    cluster.kill("kube-scheduler")
    code, told = status()
    assert code == 1
    assert told["components"]["kube-scheduler"]["state"] == "not running"
    subprocess.run([ROOT / "testbed/up"], capture_output=True, check=True)
    assert status()[0] == 0


def test_a_paused_component_is_noticed(cluster: Cluster):
    cluster.pause("kube-proxy")
    try:
        assert status()[1]["components"]["kube-proxy"]["state"] == "paused"
    finally:
        cluster.resume("kube-proxy")
    cluster.wait_ready("kube-proxy")


def test_a_runtime_is_ready_once_it_answers_and_not_once_it_listens(cluster: Cluster):
    # A kubelet that asks in between ends.
    assert cri.serves(cluster.node.socket)
    cluster.pause("containerd")
    try:
        assert cluster.node.socket.is_socket()
        assert not cri.serves(cluster.node.socket, seconds=0.2)
    finally:
        cluster.resume("containerd")
    cluster.wait_ready("containerd", "kubelet")
