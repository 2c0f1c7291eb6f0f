"""On the real cgroup v2 of this machine, where one may be changed; the controller is whichever
this hierarchy has, as the rules are the same for all of them."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from model_training.executors.local import cgroups

# Run in a process of its own, which enters the cgroup given before it asks.
ASK = """
import os, sys
from pathlib import Path
from model_training.executors.local import cgroups
cgroup, controller = Path(sys.argv[1]), sys.argv[2]
cgroups.join(cgroup)
parent = cgroups.delegated()
print(parent, cgroups.offers(parent, controller), cgroups.delegated())
"""


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """An empty cgroup such as a service manager delegates."""
    parent = cgroups.delegated()
    if parent is None:
        pytest.skip("no cgroup v2 of this machine may be changed by this user")
    made = parent / f"model-training-test-{os.getpid()}"
    made.mkdir()
    try:
        yield made
    finally:
        cgroups.remove(made / cgroups.LEAF)
        cgroups.remove(made)


@pytest.fixture
def controller(cgroup: Path) -> Iterator[str]:
    control = cgroup.parent / "cgroup.subtree_control"
    offered = (cgroup.parent / "cgroup.controllers").read_text().split()
    if not offered:
        pytest.skip("this machine's cgroup v2 has no controller to hand out")
    before = control.read_text().split()
    control.write_text(f"+{offered[0]}")
    try:
        yield offered[0]
    finally:
        (cgroup / "cgroup.subtree_control").write_text(f"-{offered[0]}")
        if offered[0] not in before:
            control.write_text(f"-{offered[0]}")


def ask(cgroup: Path, controller: str) -> list[str]:
    argv = [sys.executable, "-c", ASK, str(cgroup), controller]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()


def test_alone_in_its_cgroup_the_server_steps_aside_and_gets_the_controller(
    cgroup: Path, controller: str
):
    assert ask(cgroup, controller) == [str(cgroup), "True", str(cgroup)]
    assert controller in (cgroup / "cgroup.subtree_control").read_text().split()


def test_a_server_that_was_started_in_the_leaf_uses_the_cgroup_above(cgroup: Path, controller: str):
    (cgroup / cgroups.LEAF).mkdir()

    assert ask(cgroup / cgroups.LEAF, controller) == [str(cgroup), "True", str(cgroup)]


def test_among_others_it_stays_where_it_is(cgroup: Path, controller: str):
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        (cgroup / "cgroup.procs").write_text(str(other.pid))

        assert ask(cgroup, controller) == [str(cgroup), "False", str(cgroup)]
        assert (cgroup / "cgroup.procs").read_text().split() == [str(other.pid)]
    finally:
        other.communicate(b"\n")


def test_a_controller_that_is_not_there_is_not_offered(cgroup: Path, controller: str):
    assert ask(cgroup, "no-such-controller")[1] == "False"
