"""What tests on a real cluster share. ``scripts/test --cluster`` brings the cluster."""

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testbed.binaries import programs_folder
from testbed.cluster import OPEN_REGISTRY, Cluster
from tests.cluster import target

Kubectl = Callable[..., str]


@pytest.fixture(scope="session")
def kubeconfig() -> Path:
    """Of the cluster that the tests run on."""
    return target.kubeconfig()


@pytest.fixture(scope="session")
def registry() -> str:
    """``HOST:PORT`` of a registry that the cluster pulls from and the tests push to."""
    return os.environ.get("MODEL_TRAINING_TEST_REGISTRY", OPEN_REGISTRY)


@pytest.fixture(scope="session")
def kubectl(kubeconfig: Path) -> Kubectl:
    """Runs kubectl on the cluster."""
    return kubectl_of(kubeconfig)


def kubectl_of(kubeconfig: Path) -> Kubectl:
    """Run kubectl; what it printed. ``given`` is its input, JSON if no text."""
    built = programs_folder() / "kubectl"
    program = str(built) if built.exists() else shutil.which("kubectl")
    assert program, "the tests need kubectl on PATH"

    def run(*arguments: str, given: object = None) -> str:
        argv = [program, f"--kubeconfig={kubeconfig}", *arguments]
        text = given if isinstance(given, str | None) else json.dumps(given)
        done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    return run


@pytest.fixture(scope="module")
def namespace(kubectl: Kubectl) -> Iterator[str]:
    """A fresh namespace that admits only restricted pods; deleted after the module."""
    name = f"test-{uuid.uuid4().hex[:10]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    metadata = {"name": name, "labels": labels}
    kubectl(
        "create", "-f", "-", given={"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
    )
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def cluster(kubeconfig: Path) -> Cluster:
    """The project's own test cluster, whose parts may be broken and mended by a test."""
    found = Cluster()
    if not found.kubeconfig.exists() or not kubeconfig.samefile(found.kubeconfig):
        pytest.skip(f"breaks parts of the test cluster, which {kubeconfig} does not lead to")
    return found
