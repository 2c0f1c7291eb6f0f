"""The API server goes away and comes back: the reflector knows, and is in step soon after."""

import asyncio
import time
from pathlib import Path

import msgspec
import pytest

from model_training.executors.kubernetes import reflector
from model_training.executors.kubernetes.api import KubernetesApi
from model_training.executors.kubernetes.kubeconfig import load_cluster
from model_training.executors.kubernetes.objects import JobRow, decode_job
from testbed.control_plane import ControlPlane
from tests.cluster.reflector.lab import Followed, Namespace, following, running, settled
from tests.cluster.tcp_proxy import TcpProxy
from tests.waiting import until

pytestmark = pytest.mark.anyio

RECOVERY_S = 10.0  # every state is right within so long after the end of a fault


def allow_to_follow_jobs(namespace: Namespace) -> None:
    """Give the right to the default service account."""
    path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace.name}"
    rule = {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["list", "watch"]}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "follows"}
    whom = {"kind": "ServiceAccount", "name": "default", "namespace": namespace.name}
    metadata = {"name": "follows"}
    post = namespace.plane.api.post
    post(f"{path}/roles", {"metadata": metadata, "rules": [rule]})
    post(f"{path}/rolebindings", {"metadata": metadata, "roleRef": role, "subjects": [whom]})


async def test_a_stopped_api_server_is_noticed(namespace: Namespace) -> None:
    plane = namespace.plane
    namespace.create("a")
    async with following(plane, namespace.path) as followed:
        await settled(followed, {"a"})
        plane.pause("kube-apiserver")
        stopped = time.time()
        try:
            await until(lambda: followed.is_stale, 10.0)
            since = followed.reflector.stale_since
            assert since is not None
            assert abs(since - stopped) < 5.0  # since the last word, not since it was noticed
            assert followed.names == {"a"}  # what is known is still there
        finally:
            plane.resume("kube-apiserver")
        namespace.create("b")
        await followed.in_step(namespace, RECOVERY_S)
        assert followed.came() == ["a", "b"]


async def test_a_killed_api_server_comes_back(namespace: Namespace) -> None:
    plane = namespace.plane
    namespace.create("a", "b")
    async with following(plane, namespace.path) as followed:
        await settled(followed, {"a", "b"})
        plane.kill("kube-apiserver")
        await until(lambda: followed.is_stale, 2.0)
        plane.start("kube-apiserver")
        await asyncio.to_thread(plane.wait_ready)
        namespace.delete("a")
        namespace.create("c")
        await followed.in_step(namespace, RECOVERY_S)
        assert followed.came() == ["a", "b", "c"]
        assert followed.went() == ["a"]


async def test_an_older_database_is_believed(namespace: Namespace) -> None:
    plane = namespace.plane
    namespace.create("stays", "deleted-later", "changed-later")
    async with following(plane, namespace.path) as followed:
        await settled(followed, {"stays", "deleted-later", "changed-later"})
        older = followed.versions
        plane.snapshot("older")
        namespace.delete("deleted-later")
        namespace.annotate("changed-later", "1")
        namespace.create("created-later")
        await followed.in_step(namespace)
        followed.told.clear()
        await asyncio.to_thread(plane.restore, "older")
        assert namespace.truth() == older
        await followed.in_step(namespace, RECOVERY_S)
        assert followed.came() == ["deleted-later"]
        assert followed.went() == ["created-later"]
        assert len(followed.told) == 3
        namespace.annotate("stays", "1")  # with a version that is lower than others we had seen
        await followed.in_step(namespace)


async def test_an_older_database_is_believed_where_no_attempt_failed(
    namespace: Namespace, proxy: TcpProxy
) -> None:
    plane = namespace.plane
    namespace.create("deleted-later")
    async with following(plane, namespace.path, server=proxy.url) as followed:
        await settled(followed, {"deleted-later"})
        plane.snapshot("older")
        namespace.delete("deleted-later")
        namespace.create("created-later")
        await followed.in_step(namespace)
        followed.gate.clear()
        proxy.reset()
        await until(lambda: followed.pausing)
        await asyncio.to_thread(plane.restore, "older")
        followed.gate.set()  # and the next attempt is answered
        await followed.in_step(namespace, RECOVERY_S)
        assert followed.names == {"deleted-later"}


async def test_an_api_server_that_is_away_at_the_start_is_waited_for(namespace: Namespace) -> None:
    plane = namespace.plane
    namespace.create("a")
    plane.kill("kube-apiserver")
    async with following(plane, namespace.path) as followed:
        await until(lambda: followed.api.counts["list", "jobs"] > 2)
        assert followed.is_stale
        assert not followed.reflector.synced.is_set()
        plane.start("kube-apiserver")
        await asyncio.to_thread(plane.wait_ready)
        await followed.in_step(namespace, RECOVERY_S)


async def test_a_cut_network_is_noticed_and_bridged(namespace: Namespace, proxy: TcpProxy) -> None:
    namespace.create("a", "b")
    async with following(namespace.plane, namespace.path, server=proxy.url) as followed:
        await settled(followed, {"a", "b"})
        await proxy.cut()
        await until(lambda: followed.is_stale, 2.0)
        namespace.delete("a")
        namespace.create("c")
        counts = followed.api.counts
        asked = counts.total()
        await until(lambda: counts.total() > asked + 3)
        await proxy.restore()
        await followed.in_step(namespace, RECOVERY_S)


async def test_a_network_that_loses_everything_is_noticed_and_bridged(
    namespace: Namespace, proxy: TcpProxy
) -> None:
    namespace.create("a", "b")
    async with following(namespace.plane, namespace.path, server=proxy.url) as followed:
        await settled(followed, {"a", "b"})
        proxy.hold()
        namespace.delete("a")
        namespace.create("c")
        await until(lambda: followed.is_stale, 10.0)
        assert followed.names == {"a", "b"}
        proxy.release()
        await followed.in_step(namespace, RECOVERY_S)
        assert followed.went() == ["a"]
        assert followed.came() == ["a", "b", "c"]


async def test_a_slow_network_is_no_outage(
    namespace: Namespace, proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reflector, "QUIET_S", 0.5)
    namespace.create("a")
    proxy.delay_s = 0.4  # four of them for a connection with TLS
    async with following(namespace.plane, namespace.path, server=proxy.url) as followed:
        await followed.in_step(namespace)
        probes = followed.api.counts["get", "/livez"]
        await until(lambda: followed.api.counts["get", "/livez"] >= probes + 3)
        namespace.create("b")
        await followed.in_step(namespace)
        assert followed.reflector.lists == 1
        assert followed.reflector.watches == 1


async def test_a_stopped_etcd_ends_no_watch(
    namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reflector, "QUIET_S", 0.5)
    plane = namespace.plane
    async with following(plane, namespace.path) as followed:
        await settled(followed)
        plane.pause("etcd")
        try:
            probes = followed.api.counts["get", "/livez"]
            await until(lambda: followed.api.counts["get", "/livez"] >= probes + 3)
        finally:
            plane.resume("etcd")
        namespace.create("a")
        await followed.in_step(namespace, RECOVERY_S)
        assert followed.reflector.watches == 1


async def test_a_list_whose_version_is_forgotten_halfway_begins_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reflector, "PAGE", 2)
    decoded: list[str] = []

    def decode(raw: msgspec.Raw) -> JobRow:
        row = decode_job(raw)
        decoded.append(row.name)
        if len(decoded) == 1:
            namespace.delete("a")
            namespace.plane.compact()
        return row

    with ControlPlane(tmp_path / "plane", ["--watch-cache=false"]) as plane:
        namespace = Namespace(plane, "halfway")
        namespace.create("a", "b", "c")
        async with following(plane, namespace.path, decode=decode) as followed:
            await settled(followed, {"b", "c"})
            assert decoded == ["a", "b", "b", "c"]
            assert followed.came() == ["b", "c"]
            assert followed.reflector.lists == 1


async def test_a_token_that_ended_is_renewed_from_its_file(
    namespace: Namespace, tmp_path: Path
) -> None:
    plane = namespace.plane
    allow_to_follow_jobs(namespace)
    file = tmp_path / "token"
    file.write_text(plane.service_account_token(namespace.name, seconds=-1))
    config = load_cluster(plane.kubeconfig_of({"tokenFile": str(file)}, tmp_path / "kubeconfig"))
    async with KubernetesApi(config) as api:
        followed = Followed(api, namespace.path, decode_job)
        async with running(followed):
            await until(lambda: api.counts["list", "jobs"] >= 4)  # each twice
            assert followed.is_stale
            file.write_text(plane.service_account_token(namespace.name))
            await followed.in_step(namespace, RECOVERY_S)
        # And in the middle of work: the call does not notice.
        file.write_text(plane.service_account_token(namespace.name, seconds=-1))
        await config.credentials.renew(await config.credentials.grant())
        file.write_text(plane.service_account_token(namespace.name))
        assert b"JobList" in await api.get(namespace.path)
