"""Every way to end: exit codes, signals, out of memory, time out."""

import asyncio
import os
import signal
import time
from collections.abc import Callable

import pytest

from model_training.jobs import JobState, Reason, Resources
from tests.contract.lab import Case, Lab
from tests.contract.leftovers import dead_children
from tests.waiting import until

pytestmark = pytest.mark.anyio

# What the default action of these does not end: ignored, or (in a session of its own, where
# nobody could continue it) not stopped by the terminal's signals either.
HARMLESS = {
    signal.SIGCHLD,
    signal.SIGCONT,
    signal.SIGTSTP,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGURG,
    signal.SIGWINCH,
}
SIGNALS = sorted(signal.valid_signals() - {signal.SIGSTOP})  # SIGKILL too, though not catchable


_DEFAULT = "signal.signal({:d}, signal.SIG_DFL)\n"


async def test_all_signals_a_job_may_die_of_are_told(open_lab: Callable[..., Lab]) -> None:
    async with open_lab(slots=8) as lab:
        told = Reason.ERROR if Case.SIGNALS in lab.bench.cannot else Reason.SIGNAL
        # By Python, for some shells ignore SIGQUIT; and without what Python itself ignores.
        code = "import os, signal\n{}os.kill(os.getpid(), {:d})\nprint('on')"
        argvs = [
            [*lab.bench.python, "-c", code.format(_DEFAULT.format(n) if n != 9 else "", n)]
            for n in SIGNALS
        ]
        names = [await lab.launch(argv) for argv in argvs]
        for number, name in zip(SIGNALS, names, strict=True):
            end = await lab.ended(name, within=30)
            if number in HARMLESS:
                assert (end.state, lab.log(name)) == (JobState.SUCCEEDED, b"on\n"), number
                continue
            assert (end.state, end.reason) == (JobState.FAILED, told), number
            assert (end.exit_code, lab.log(name)) == (128 + number, b""), number
            if isinstance(number, signal.Signals):
                assert number.name in (end.message or "")


async def test_an_exit_code_above_128_is_no_signal(lab: Lab) -> None:
    lab.needs(Case.SIGNALS)
    end = await lab.ended(await lab.launch(lab.sh("exit 137")))
    assert (end.reason, end.exit_code) == (Reason.ERROR, 137)


async def test_a_job_out_of_memory_is_told_as_far_as_it_can_be_known(lab: Lab) -> None:
    if lab.executor.cannot_enforce(Resources(memory=64 << 20)):
        # Nobody here ends it but the kernel, which sends SIGKILL from outside: so do we.
        name = await lab.launch(lab.waiting())
        await lab.begun(name)
        (process,) = lab.pids(name)
        os.kill(process, signal.SIGKILL)
    else:
        hog = "block = b'x' * (512 << 20)"
        name = await lab.launch(lab.py(hog), resources=Resources(memory=64 << 20))
    end = await lab.ended(name)
    assert (end.state, end.reason) == (JobState.FAILED, lab.bench.out_of_memory)
    assert "memory" in (end.message or "")


async def test_a_job_over_its_time_is_ended(lab: Lab) -> None:
    name = await lab.launch(lab.waiting(), timeout_s=1.0, grace_s=5.0)
    running = await lab.running(name)
    begin = time.monotonic()
    end = await lab.ended(name)
    assert time.monotonic() - begin < 3 + lab.late_s
    assert (end.state, end.reason) == (JobState.FAILED, Reason.TIMEOUT)
    assert end.exit_code == 128 + signal.SIGTERM
    assert end.started_at == running.started_at
    assert 1.0 <= end.duration_s < 3 + lab.late_s
    assert lab.processes() == []


async def test_a_job_over_its_time_has_its_grace_to_save_what_it_has(lab: Lab) -> None:
    code = """
import signal, sys
def save(*_):
    open(os.environ["MODEL_TRAINING_OUTPUT"] + "/checkpoint", "w").write("saved")
    print("saved", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
print("ready", flush=True)
signal.pause()"""
    name = await lab.launch(lab.py(code), timeout_s=1.0, grace_s=20.0)
    end = await lab.ended(name)
    assert (end.state, end.reason) == (JobState.FAILED, Reason.TIMEOUT)
    assert lab.log(name) == b"ready\nsaved\n"
    assert (lab.bench.output(name) / "checkpoint").read_text() == "saved"


async def test_a_job_over_its_time_that_ignores_sigterm_is_killed(lab: Lab) -> None:
    name = await lab.launch(lab.sh("trap '' TERM\nread x < \"$GO\""), timeout_s=1.0, grace_s=1.0)
    end = await lab.ended(name)
    assert (end.state, end.reason) == (JobState.FAILED, Reason.TIMEOUT)
    assert end.exit_code == 128 + signal.SIGKILL
    assert 2.0 <= end.duration_s < 4 + lab.late_s
    assert lab.processes() == []


async def test_waiting_does_not_count_against_the_time(open_lab: Callable[..., Lab]) -> None:
    async with open_lab(slots=1) as lab:
        lab.needs(Case.QUEUE)
        before = await lab.launch(lab.waiting(), timeout_s=60.0)
        name = await lab.launch(lab.sh("sleep 0.3"), timeout_s=1.0)
        await asyncio.sleep(1.2)  # the time itself is what is tested
        await lab.go(before)
        assert (await lab.ended(name)).state is JobState.SUCCEEDED


async def test_a_job_begins_with_all_signals_at_their_defaults(lab: Lab) -> None:
    name = await lab.launch(lab.sh("exec grep -E 'Sig(Blk|Ign)' /proc/self/status"))
    await lab.ended(name)
    # By exec, as a shell that starts a child may itself block signals for that moment.
    blocked, ignored = (int(word, 16) for word in lab.log(name).split()[1::2])
    # Signals 32 and 33 belong to the C library, whose posix_spawn leaves them ignored in the new
    # process; no program can set them, and the library itself does when it needs them.
    library_own = (1 << 31) | (1 << 32)
    assert (blocked, ignored & ~library_own) == (0, 0)


async def test_the_server_is_left_with_no_dead_children(lab: Lab) -> None:
    names = [await lab.launch(lab.sh(f"exit {code}")) for code in range(5)]
    for name in names:
        await lab.ended(name)
    await until(lambda: not dead_children())
