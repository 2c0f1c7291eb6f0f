"""What a job prints is in its log: every byte, unchanged, at once."""

import hashlib
import time

import pytest

from model_training.jobs import JobState
from tests.contract.lab import WAIT, Case, Lab
from tests.waiting import until

pytestmark = pytest.mark.anyio

EVERY_BYTE = bytes(range(256))


@pytest.mark.parametrize(
    "printed",
    [
        pytest.param(b"no newline at the end", id="no newline"),
        pytest.param(b"\0\0before\0after\0\n", id="NUL bytes"),
        pytest.param(b"\xff\xfe\x80 \xc3 \xe2\x82 \xed\xa0\x80\n", id="invalid UTF-8"),
        pytest.param(EVERY_BYTE * 300, id="every byte"),
        pytest.param(b"\r\n\r\r\n\n", id="only line ends"),
        pytest.param(b"", id="nothing at all"),
    ],
)
async def test_the_log_is_what_was_printed(lab: Lab, printed: bytes) -> None:
    if b"\r\n" in printed:
        lab.needs(Case.RAW_OUTPUT)
    code = f"os.write(1, bytes.fromhex('{printed[:256].hex()}') * {max(1, len(printed) // 256)})"
    name = await lab.launch(lab.py(code))
    end = await lab.ended(name)
    assert (end.state, lab.log(name)) == (JobState.SUCCEEDED, printed)


async def test_a_line_of_16_mib_arrives_whole(lab: Lab) -> None:
    # A node keeps 10 MiB in a file. It passes a file over for a reader who is behind by a whole
    # one, which no reader can be kept from on a machine that is slow enough; of two there is none.
    code = """
block = bytes(33 + i % 90 for i in range(1 << 20))
for i in range(16):
    view = memoryview(block)
    while view:
        view = view[os.write(1, view):]"""
    name = await lab.launch(lab.py(code))
    end = await lab.ended(name, within=30)
    assert end.state is JobState.SUCCEEDED
    wanted = hashlib.sha256(bytes(33 + i % 90 for i in range(1 << 20)) * 16).digest()
    assert hashlib.sha256(lab.log(name)).digest() == wanted


async def test_a_progress_bar_is_seen_while_it_moves(lab: Lab) -> None:
    lab.needs(Case.RAW_OUTPUT)
    script = rf"printf '\r 10%%'; {WAIT}; printf '\r 20%%'; {WAIT}"
    name = await lab.launch(lab.sh(script))
    await until(lambda: lab.log(name) == b"\r 10%")
    await lab.go(name)
    begin = time.monotonic()
    await until(lambda: lab.log(name) == b"\r 10%\r 20%")
    assert time.monotonic() - begin < 1 + lab.late_s
    await lab.running(name)
    assert not lab.last(name).state.is_terminal
    await lab.go(name)
    assert (await lab.ended(name)).state is JobState.SUCCEEDED


async def test_both_streams_keep_their_order(lab: Lab) -> None:
    lab.needs(Case.RAW_OUTPUT)
    name = await lab.launch(lab.sh("for i in 1 2 3 4 5; do echo out $i; echo err $i >&2; done"))
    await lab.ended(name)
    lines = lab.log(name).decode().splitlines()
    assert lines == [f"{stream} {i}" for i in range(1, 6) for stream in ("out", "err")]


async def test_what_was_printed_just_before_a_sudden_death_is_there(lab: Lab) -> None:
    code = "import signal\nos.write(1, b'x' * 60_000 + b'last words')\nos.kill(os.getpid(), 9)"
    name = await lab.launch(lab.py(code))
    await lab.ended(name)
    assert lab.log(name) == b"x" * 60_000 + b"last words"


async def test_a_job_that_closes_its_output_runs_on(lab: Lab) -> None:
    script = 'echo before; exec >&- 2>&-; read x < "$GO"; echo on >> "$WITNESS"; exit 6'
    name = await lab.launch(lab.sh(script))
    await lab.printed(name, b"before\n")
    barrier = await lab.launch(lab.sh("true"))
    await lab.ended(barrier)
    await lab.running(name)
    assert not lab.last(name).state.is_terminal
    await lab.go(name)
    end = await lab.ended(name)
    assert (end.exit_code, lab.log(name)) == (6, b"before\n")
    assert "on\n" in (lab.bench.shared / f"{name}.witness").read_text()


async def test_grandchildren_that_keep_the_output_open_do_not_keep_the_job_alive(
    lab: Lab,
) -> None:
    script = "(trap '' TERM HUP; setsid sleep 1000) & echo leader leaves; exit 5"
    name = await lab.launch(lab.sh(script))
    await lab.printed(name, b"leader leaves\n")
    begin = time.monotonic()
    end = await lab.ended(name, within=10)
    assert time.monotonic() - begin < 6 + lab.late_s
    assert (end.state, end.exit_code) == (JobState.FAILED, 5)
    assert lab.log(name) == b"leader leaves\n"
    assert lab.processes() == []


async def test_what_a_grandchild_prints_right_after_its_parent_left_is_there(lab: Lab) -> None:
    lab.needs(Case.DESCENDANTS)
    name = await lab.launch(lab.sh("(sleep 0.3; echo grandchild) & echo leader"))
    end = await lab.ended(name)
    assert end.state is JobState.SUCCEEDED
    assert lab.log(name) == b"leader\ngrandchild\n"


async def test_the_log_is_whole_once_the_end_is_seen(lab: Lab) -> None:
    names = [await lab.launch(lab.sh(f"seq 1 {20_000 + i}")) for i in range(8)]
    for i, name in enumerate(names):
        await lab.ended(name, within=20)
        assert lab.log(name).endswith(f"\n{20_000 + i}\n".encode())
