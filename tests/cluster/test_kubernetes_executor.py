"""What only the executor of a cluster does; what it shares with others is in ``tests/contract``."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from model_training.errors import ExecutorUnavailable
from model_training.executors.kubernetes import api as apis
from model_training.executors.kubernetes import executor as executors
from model_training.executors.kubernetes.api import KubernetesApi
from model_training.executors.kubernetes.executor import KubernetesExecutor
from model_training.executors.kubernetes.kubeconfig import load_cluster
from model_training.executors.kubernetes.manifest import Site
from model_training.executors.kubernetes.objects import decode_job
from model_training.executors.kubernetes.removal import delete_job
from model_training.jobs import JobState
from tests.cluster.tcp_proxy import TcpProxy
from tests.contract.cluster_bench import ClusterBench, Ground, ground
from tests.contract.lab import Lab
from tests.waiting import until

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def claims(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with ground(tmp_path_factory.mktemp("claims") / "outputs") as made:
        yield made


@pytest.fixture
def bench(tmp_path: Path, claims: Ground) -> ClusterBench:
    return ClusterBench(tmp_path, claims)


class Tidy(ClusterBench):
    """Finished Jobs stay for a second."""

    def executor(self, **_: object) -> KubernetesExecutor:
        site = Site(namespace=self.ground.namespace)
        api = KubernetesApi(load_cluster(self.ground.kubeconfig))
        return KubernetesExecutor(api, self.data, site, finished_s=1.0)


async def test_a_finished_job_leaves_the_cluster_once_its_end_is_recorded(
    tmp_path: Path, claims: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "TIDY_S", 0.5)
    bench = Tidy(tmp_path, claims)
    async with Lab(bench) as lab:
        recorded, unrecorded = [await lab.launch(lab.sh("echo words")) for _ in range(2)]
        running = await lab.launch(lab.waiting())
        for name in (recorded, unrecorded):
            await lab.ended(name)
        await lab.running(running)
        said = len(lab.watch.history(recorded))
        await lab.executor.settle([recorded])
        await until(lambda: not [left for left in claims.left() if recorded in left], 20)
        left = " ".join(claims.left())
        assert unrecorded in left
        assert running in left
        assert lab.log(recorded) == b"words\n"
        assert len(lab.watch.history(recorded)) == said, "an end that is recorded is no news"


async def test_a_namesake_is_not_deleted_for_it(bench: ClusterBench) -> None:
    async with Lab(bench) as lab:
        name = await lab.launch(lab.waiting())
        await lab.running(name)
        namespace = bench.ground.namespace
        raw = bench.ground.kubectl("get", "job", name, "-n", namespace, "-o", "json")
        uid = decode_job(raw.encode()).uid
        other = decode_job(raw.replace(uid, "11111111-2222-3333-4444-555555555555").encode())
        async with KubernetesApi(load_cluster(bench.ground.kubeconfig)) as api:
            await delete_job(api, other)
        raw = bench.ground.kubectl("get", "job", name, "-n", namespace, "-o", "json")
        assert "deletionTimestamp" not in json.loads(raw)["metadata"]


async def test_a_job_cannot_be_launched_while_somebody_deletes_its_namesake(
    bench: ClusterBench,
) -> None:
    async with Lab(bench) as lab:
        argv = lab.py(
            "import signal, sys\n"
            "def leave(*_): open(os.environ['GO']).read(), sys.exit(3)\n"
            "signal.signal(signal.SIGTERM, leave)\n"
            "print('up', flush=True)\nsignal.pause()"
        )
        spec = lab.spec(argv, grace_s=20.0)
        await lab.launch_spec(spec)
        await lab.printed(spec.name, b"up\n")
        bench.ground.kubectl(
            "delete", "job", spec.name, "-n", bench.ground.namespace, "--cascade=foreground",
            "--wait=false",
        )  # fmt: skip
        with pytest.raises(ExecutorUnavailable, match="is being deleted"):
            await lab.executor.launch(spec)
        await lab.go(spec.name)
        await lab.gone(spec.name)
        told = len(lab.watch.history(spec.name))
        await lab.executor.remove(spec.name)  # what the service has of it stays until then
        await until(lambda: len(lab.watch.history(spec.name)) > told, 20)


class Proxied(ClusterBench):
    """The network to the API server may lose what is sent."""

    proxy: TcpProxy

    def executor(self, **_: object) -> KubernetesExecutor:
        config = replace(load_cluster(self.ground.kubeconfig), server=self.proxy.url)
        site = Site(namespace=self.ground.namespace)
        return KubernetesExecutor(KubernetesApi(config), self.data, site)


async def test_a_job_whose_creation_was_answered_but_not_heard_does_not_run_on(
    tmp_path: Path, claims: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apis, "CALL_S", 3.0)
    bench = Proxied(tmp_path, claims)
    async with TcpProxy(load_cluster(claims.kubeconfig).server) as bench.proxy, Lab(bench) as lab:
        await lab.ended(await lab.launch(lab.sh("true")))
        spec = lab.spec(lab.waiting())
        bench.proxy.hold_answers()
        with pytest.raises(ExecutorUnavailable, match="no answer in time"):
            await lab.executor.launch(spec)
        assert any(spec.name in left for left in claims.left()), "nothing was in doubt"
        bench.proxy.release()
        await lab.gone(spec.name)
        assert not [left for left in claims.left() if spec.name in left]


async def test_the_log_of_a_pod_that_outlives_its_job_is_whole(bench: ClusterBench) -> None:
    async with Lab(bench) as lab:
        argv = lab.py(
            "import signal, sys, time\n"
            "def leave(*_):\n"
            "    for number in range(4):\n"
            "        print(number, flush=True)\n"
            "        time.sleep(1)\n"
            "    print('left', flush=True)\n"
            "    sys.exit(3)\n"
            "signal.signal(signal.SIGTERM, leave)\n"
            "print('up', flush=True)\nsignal.pause()"
        )
        name = await lab.launch(argv, grace_s=20.0)
        await lab.printed(name, b"up\n")
        bench.ground.kubectl(
            "delete", "job", name, "-n", bench.ground.namespace, "--cascade=background",
        )  # fmt: skip
        await lab.gone(name, within=20)
        assert lab.log(name) == b"up\n0\n1\n2\n3\nleft\n"
        told = len(lab.watch.history(name))
        await lab.executor.remove(name)
        await until(lambda: len(lab.watch.history(name)) > told, 20)


async def test_a_note_of_a_stop_that_cannot_be_removed_holds_up_nobody(bench: ClusterBench) -> None:
    async with Lab(bench) as lab:
        name = await lab.launch(lab.waiting())
        await lab.running(name)
        await lab.executor.stop(name)
        assert (await lab.ended(name)).state is JobState.STOPPED
        note = bench.data.open_jobs / name
        note.unlink()
        note.mkdir()
        await lab.executor.settle([name])
        other = await lab.launch(lab.sh("true"))
        assert (await lab.ended(other)).state is JobState.SUCCEEDED
        note.rmdir()
