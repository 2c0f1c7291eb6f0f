"""``testbed/down`` after every crash. These tests take the test cluster away, so nothing runs them
but ``scripts/test tests/testbed``; they bring it up and down themselves, as root.
"""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from testbed.cluster import Cluster
from testbed.processes import carrying
from tests.waiting import until

pytestmark = pytest.mark.anyio

TESTBED = Path(__file__).parents[2] / "testbed"
PODS = "/api/v1/namespaces/default/pods"
POD = {
    "metadata": {"name": "sleeps"},
    "spec": {
        "containers": [
            {
                "name": "sleeps",
                "image": "127.0.0.1:5000/model-training-base:latest",
                "command": ["sleep", "1000"],
            }
        ]
    },
}


def command(name: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([TESTBED / name], capture_output=True, text=True, check=False)


async def with_a_pod() -> Cluster:
    """A running cluster with a running pod."""
    done = command("up")
    assert done.returncode == 0, done.stderr
    cluster = Cluster()
    cluster.api.post(PODS, POD)
    await until(lambda: cluster.api.get(f"{PODS}/sleeps")["status"]["phase"] == "Running", 30)
    assert cluster.leftovers()
    return cluster


def kill_shims(cluster: Cluster) -> None:
    for shim in list(carrying("containerd-shim", str(cluster.node.socket))):
        shim.send(signal.SIGKILL)


FAULTS: dict[str, Callable[[Cluster], object]] = {
    "nothing": lambda _: None,
    **{
        name: lambda cluster, name=name: cluster.kill(name)
        for name in ("etcd", "kube-apiserver", "containerd", "kubelet")
    },
    "shims": kill_shims,
    "everything": lambda cluster: [cluster.kill(name) for name in cluster.components()],
    "everything paused": lambda cluster: [cluster.pause(name) for name in cluster.components()],
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_nothing_is_left_after(fault: str):
    cluster = await with_a_pod()
    FAULTS[fault](cluster)
    done = command("down")
    assert (done.returncode, done.stderr) == (0, "")
    assert cluster.leftovers() == []


@pytest.mark.parametrize("name", ["kube-apiserver", "containerd", "kubelet"])
async def test_nothing_is_left_when_up_was_killed_after_the_start_of(name: str):
    cluster = Cluster()
    up = subprocess.Popen([TESTBED / "up"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        await until(lambda: cluster.condition(name).pid, 60)
    finally:
        up.kill()
        up.wait()
    done = command("down")
    assert (done.returncode, done.stderr) == (0, "")
    assert cluster.leftovers() == []


async def test_down_ends_nobody_whose_pid_is_in_an_old_record(tmp_path: Path):
    command("up")
    cluster = Cluster()
    record = cluster.folder / "run/kube-scheduler.json"
    text = record.read_text()
    stranger = subprocess.Popen(["sleep", "100"])
    try:
        pid = cluster.condition("kube-scheduler").pid
        cluster.kill("kube-scheduler")
        record.write_text(text.replace(f'"pid": {pid}', f'"pid": {stranger.pid}'))
        assert command("down").returncode == 0
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_down_where_nothing_is_up_is_well():
    command("down")
    assert command("down").returncode == 0


def test_without_root_up_says_so():
    argv = ["setpriv", "--reuid=65534", "--clear-groups", TESTBED / "up"]
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert "needs root" in done.stderr
