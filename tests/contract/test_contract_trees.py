"""Whole trees end: whatever a job's processes do to stay, nothing of them is left."""

import asyncio
import time

import pytest

from model_training.jobs import JobState, Reason
from tests.contract.lab import Lab

pytestmark = pytest.mark.anyio

GRACE = 1.0  # seconds
BOUND = GRACE + 2.0  # seconds, within which nothing may be left

# All of them end by themselves after a while, should the executor fail to end them.
DOUBLE_FORK = """
import signal, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        os.chdir("/")
        print("up", flush=True)
        for fd in (0, 1, 2):
            os.close(fd)
        time.sleep(60)
    os._exit(0)
time.sleep(60)"""
NOHUP = "trap '' HUP; sleep 60 >/dev/null 2>&1 & setsid sleep 60 >/dev/null 2>&1 & echo up; wait"
IGNORED_SIGTERM = "trap '' TERM HUP INT; sleep 60 & sleep 60 & echo up; wait"
STOPPED_BY_ITSELF = """
import signal, time
if os.fork() == 0:
    os.kill(os.getpid(), signal.SIGSTOP)
print("up", flush=True)
time.sleep(60)"""
WITHOUT_ENVIRONMENT = """
import subprocess, sys, time
code = "import time; print('up', flush=True); time.sleep(60) # {MARK}"
argv = [sys.executable, "-S", "-c", code]
subprocess.Popen(argv, env={}, start_new_session=True)
time.sleep(60)"""
# Sixty that sleep, and ten chains that go on in a new process and session every few ms: one
# that is looked for has already gone on, so each notes that it lives.
FORK_STORM = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
end = time.monotonic() + 20
beat = os.open(os.environ["WITNESS"] + ".beat", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
for i in range(60):
    if os.fork() == 0:
        time.sleep(20)
        os._exit(0)
for i in range(10):
    if os.fork() == 0:
        while time.monotonic() < end:
            if os.fork():
                os._exit(0)
            os.setsid()
            os.write(beat, b".")
            time.sleep(0.01)
        os._exit(0)
print("up", flush=True)
time.sleep(20)"""
TREES = ["DOUBLE_FORK", "NOHUP", "IGNORED_SIGTERM", "STOPPED_BY_ITSELF", "WITHOUT_ENVIRONMENT"]


def _argv(lab: Lab, tree: str) -> tuple[str, ...]:
    script = globals()[tree].replace("{MARK}", lab.mark)
    return lab.sh(script) if tree in ("NOHUP", "IGNORED_SIGTERM") else lab.py(script)


async def _assert_nothing_left(lab: Lab, name: str) -> None:
    beat = lab.bench.shared / f"{name}.witness.beat"
    size = beat.stat().st_size if beat.exists() else 0
    assert lab.processes() == []
    if size:
        await asyncio.sleep(0.3)  # thirty beats of each chain
        assert beat.stat().st_size == size, "a chain of forks goes on"


@pytest.mark.parametrize("tree", [*TREES, "FORK_STORM"])
async def test_a_stop_leaves_nothing_of_the_tree(lab: Lab, tree: str) -> None:
    name = await lab.launch(_argv(lab, tree), grace_s=GRACE)
    await lab.printed(name, b"up\n")
    assert len(lab.processes()) >= 2
    begin = time.monotonic()
    await lab.executor.stop(name)
    end = await lab.ended(name, within=BOUND)
    assert time.monotonic() - begin < BOUND + lab.late_s
    await _assert_nothing_left(lab, name)  # once the end is seen, and not a little later
    assert end.state is JobState.STOPPED


@pytest.mark.parametrize("tree", ["DOUBLE_FORK", "FORK_STORM"])
async def test_a_removal_leaves_nothing_of_the_tree(lab: Lab, tree: str) -> None:
    name = await lab.launch(_argv(lab, tree), grace_s=GRACE)
    await lab.printed(name, b"up\n")
    await lab.executor.remove(name)
    await lab.gone(name, within=BOUND)
    await _assert_nothing_left(lab, name)
    assert lab.bench.traces() == []


@pytest.mark.parametrize("tree", ["DOUBLE_FORK", "FORK_STORM"])
async def test_a_timeout_leaves_nothing_of_the_tree(lab: Lab, tree: str) -> None:
    name = await lab.launch(_argv(lab, tree), grace_s=GRACE, timeout_s=1.0)
    await lab.running(name)
    end = await lab.ended(name, within=1.0 + BOUND)
    assert end.reason == Reason.TIMEOUT
    await _assert_nothing_left(lab, name)


async def test_the_end_of_the_command_leaves_nothing_of_the_tree(lab: Lab) -> None:
    code = DOUBLE_FORK.removesuffix("time.sleep(60)") + "\ntime.sleep(0.3)\nos._exit(4)"
    name = await lab.launch(lab.py(code), grace_s=GRACE)
    end = await lab.ended(name)
    assert (end.state, end.exit_code) == (JobState.FAILED, 4)
    assert lab.processes() == []
