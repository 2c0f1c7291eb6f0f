"""The private control plane: every fault that a watcher must survive can be made with it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.api import Api
from testbed.control_plane import ControlPlane
from testbed.errors import ClusterError
from testbed.processes import carrying

MAPS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with ControlPlane(tmp_path_factory.mktemp("plane") / "state") as plane:
        yield plane


def names(plane: ControlPlane) -> set[str]:
    return {item["metadata"]["name"] for item in plane.api.get(MAPS)["items"]}


def test_nothing_is_left_of_it(tmp_path: Path):
    folder = tmp_path / "state"
    with ControlPlane(folder) as plane:
        assert plane.api.get("/version")["gitVersion"].startswith("v1.")
        assert list(carrying(str(folder)))
    assert not list(carrying(str(folder)))
    assert not folder.exists()


def test_what_was_written_survives_a_kill(plane: ControlPlane):
    plane.api.post(MAPS, {"metadata": {"name": "kept"}})
    for name in ("kube-apiserver", "etcd"):
        plane.kill(name)
        assert plane.condition(name).state == "not running"
    for name in ("etcd", "kube-apiserver"):
        plane.start(name)
    plane.wait_ready()
    assert "kept" in names(plane)


def test_a_paused_server_takes_connections_and_does_not_answer(plane: ControlPlane):
    plane.pause("kube-apiserver")
    try:
        with pytest.raises(TimeoutError):
            plane.api.request("GET", "/version", seconds=0.5)
        assert plane.condition("kube-apiserver").state == "paused"
    finally:
        plane.resume("kube-apiserver")
    plane.wait_ready()


def test_an_old_revision_is_gone_after_compaction(plane: ControlPlane):
    old = plane.api.get(MAPS)["metadata"]["resourceVersion"]
    for name in ("newer", "newest"):
        plane.api.post(MAPS, {"metadata": {"name": name}})
    plane.compact()
    plane.restart("kube-apiserver", ["--watch-cache=false"])
    _, _, content = plane.api.request("GET", f"{MAPS}?watch=1&resourceVersion={old}")
    status = json.loads(content.splitlines()[0])
    assert 410 in (status.get("code"), status.get("object", {}).get("code"))
    plane.restart("kube-apiserver")


def test_the_database_goes_back(plane: ControlPlane):
    plane.api.post(MAPS, {"metadata": {"name": "before"}})
    plane.snapshot("older")
    revision = plane.revision()
    plane.api.post(MAPS, {"metadata": {"name": "after"}})
    plane.restore("older")
    assert {"before", "after"} & names(plane) == {"before"}
    assert plane.revision() <= revision + 20  # what the API server itself wrote since


def test_flags_of_a_restart_come_after_its_own(plane: ControlPlane):
    plane.restart("kube-apiserver", ["--max-requests-inflight=3"])
    assert any("--max-requests-inflight=3" in each.argv for each in carrying(str(plane.folder)))
    plane.restart("kube-apiserver")


def test_a_token_ends_when_it_should(plane: ControlPlane):
    path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    codes = []
    for seconds in (600, 0):
        token = plane.service_account_token("default", "robot", seconds)
        headers = {"Authorization": f"Bearer {token}"}
        anybody = Api(plane.url, plane.keys.certificate("ca"))
        codes.append(anybody.request("POST", path, body, headers)[0])
    assert codes == [201, 401]


def test_a_component_that_is_not_there_is_named(plane: ControlPlane):
    with pytest.raises(ClusterError, match="no component kubelet; there are: etcd"):
        plane.kill("kubelet")


def test_a_component_that_cannot_start_says_why(tmp_path: Path):
    plane = ControlPlane(tmp_path / "state", ["--no-such-flag"])
    with pytest.raises(ClusterError, match="unknown flag: --no-such-flag"):
        plane.up()
    plane.down()
    assert not list(carrying(str(plane.folder)))
