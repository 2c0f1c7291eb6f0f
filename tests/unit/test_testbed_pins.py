"""The test cluster's pins agree with each other."""

import re

from testbed.binaries import HERE, KUBERNETES, PROGRAMS

PINS = (HERE / "go.mod").read_text()


def test_the_version_that_is_linked_in_is_the_one_that_is_built():
    assert f"\tk8s.io/kubernetes {KUBERNETES} " in PINS


def test_every_staging_module_is_of_the_same_release():
    replaced = re.findall(r"^\tk8s\.io/\S+ => k8s\.io/\S+ (\S+)$", PINS, re.MULTILINE)
    assert set(replaced) == {KUBERNETES.replace("v1.", "v0.", 1)}


def test_every_program_is_a_tool_of_the_module():
    tools = PINS.partition("tool (")[2].partition(")")[0].split()
    assert sorted(tools) == sorted(PROGRAMS.values())
