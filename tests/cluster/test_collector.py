"""On a real cluster: what pods print is in the log, byte for byte, whatever happens meanwhile."""

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from msgspec.structs import replace

from model_training.executors.kubernetes.api import KubernetesApi
from model_training.executors.kubernetes.kubeconfig import load_cluster
from model_training.logs.timestamps import LineTimes
from testbed.cluster import Cluster
from tests.cluster.log_lab import LogLab, LogProcess, namespace
from tests.cluster.tcp_proxy import TcpProxy
from tests.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def kubeconfig() -> Path:
    return Cluster().kubeconfig


@pytest.fixture
async def api(kubeconfig: Path) -> AsyncGenerator[KubernetesApi]:
    async with KubernetesApi(load_cluster(kubeconfig)) as api:
        yield api


@pytest.fixture
async def place(api: KubernetesApi) -> AsyncGenerator[str]:
    async with namespace(api) as name:
        yield name


@pytest.fixture
async def lab(api: KubernetesApi, place: str, tmp_path: Path) -> AsyncGenerator[LogLab]:
    async with LogLab(api, place, tmp_path) as lab:
        yield lab


def python(program: str) -> list[str]:
    return ["python3", "-uc", program]


def printing(expression: str) -> list[str]:
    """A program that writes these bytes in one go."""
    return python(f"import sys; sys.stdout.buffer.write({expression})")


COUNT = """
import sys, time
for number in range({lines}):
    sys.stdout.write(f"line {{number}}\\n")
    if number % 10 == 9:
        sys.stdout.flush()
        time.sleep({pause})
"""


def counting(lines: int, per_second: int) -> list[str]:
    return ["python3", "-c", COUNT.format(lines=lines, pause=10 / per_second)]


def counted(lines: int) -> bytes:
    return b"".join(b"line %d\n" % number for number in range(lines))


BYTES = {
    "json": b'{"epoch": 1, "loss": 0.5}\n[1, 2]\nnull\n"text"\n',
    "numbers": b"1\n2.5\n-3\n1e400\nNaN\n",
    "not-utf8": b"\xff\xfe\xc3\n\x80abc\xf0\x9f\n",
    "zeros": b"a\0b\0\n\0\n",
    "bars": b"\r 10%\r 20%\r100%\rdone\n",
    "unended": b"first\nsecond",
    "empty-lines": b"\n\n\na\n\n",
    "nothing": b"",
    "stamped": b"2026-11-25T15:06:07.123456789Z stdout F text\n2026-11-25T15:06:07.1Z \n",
    "long": b"x" * (1 << 20) + b"\n" + b"y" * (1 << 20) + b"\nshort\n",
    "long-unended": b"z" * ((1 << 20) + 12345),
    "parts": b"a" * 16384 + b"\n" + b"b" * 16383 + b"\n" + b"c" * 16385,
    "like-an-error": b"unable to retrieve container logs for containerd://0123",
}


async def test_every_byte_arrives_as_it_was_printed(lab: LogLab):
    for name, text in BYTES.items():
        source = f"{text!r}"
        if len(text) > 1000:
            source = "+".join(f"{chr(c)!r}.encode()*{n}" for c, n in _runs(text))
        await lab.run(name, *printing(source))
    for name, text in BYTES.items():
        assert await lab.complete(name, 90) == text, name
        assert lab.log(name).gaps() == ()
    assert sorted(lab.done) == sorted(BYTES)


def _runs(text: bytes) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for byte in text:
        if runs and runs[-1][0] == byte:
            runs[-1] = (byte, runs[-1][1] + 1)
        else:
            runs.append((byte, 1))
    return runs


async def test_carriage_returns_before_newlines_never_reach_us(lab: LogLab):
    await lab.run("dos", *printing(repr(b"a\r\nb\r\r\nc\rd\r\n")))
    assert await lab.complete("dos") == b"a\nb\r\nc\rd\n"


async def test_stdout_and_stderr_come_together_in_their_order(lab: LogLab):
    await lab.run(
        "both",
        "sh",
        "-c",
        "for i in 1 2 3; do echo out$i; sleep 0.2; echo err$i >&2; sleep 0.2; done",
    )
    assert await lab.complete("both") == b"out1\nerr1\nout2\nerr2\nout3\nerr3\n"


async def test_lines_are_there_while_the_container_runs_with_the_times_of_the_node(lab: LogLab):
    await lab.run(
        "slow", *python("import time\nprint(time.time())\ntime.sleep(5)\nprint(time.time())")
    )
    await until(lambda: lab.text("slow"), 20)
    assert not lab.collector.is_complete("slow")
    text = await lab.complete("slow")
    log = lab.log("slow")
    first, second = text.split()
    assert abs(log.time_at(0) / 1e9 - float(first)) < 0.2
    assert abs(log.time_at(len(first) + 1) / 1e9 - float(second)) < 0.2
    assert LineTimes(log, 0).stamp(log.read(0, 100)).count(b"Z ") == 2


async def test_a_pod_that_ends_at_once_is_read_whole(lab: LogLab):
    for number in range(5):
        await lab.run(f"fast-{number}", "sh", "-c", "echo 1; echo 2 >&2; printf 3; exit 1")
    for number in range(5):
        assert sorted(await lab.complete(f"fast-{number}")) == sorted(b"1\n2\n3")


async def test_init_containers_come_first_and_sidecars_never(lab: LogLab):
    await lab.run(
        "inits",
        *("sh", "-c", "echo main; sleep 1; echo end"),
        init={
            "one": ["sh", "-c", "echo one; sleep 1; printf end-of-one"],
            "beside~": ["sh", "-c", "trap 'exit 0' TERM; while :; do echo beside; sleep 0.2; done"],
            "two": ["sh", "-c", "echo two"],
        },
        beside={"other": ["sh", "-c", "echo other"]},
    )
    assert await lab.complete("inits", 60) == b"one\nend-of-onetwo\nmain\nend\n"


async def test_an_init_container_that_fails_is_all_there_is(lab: LogLab):
    await lab.run("failing", "echo", "never", init={"one": ["sh", "-c", "echo broken; exit 3"]})
    assert await lab.complete("failing") == b"broken\n"


async def test_each_pod_of_a_job_is_an_attempt(lab: LogLab):
    await lab.run("twice", "sh", "-c", "echo first; exit 1")
    await lab.complete("twice")
    pod = await lab.run("twice", "sh", "-c", "echo second")
    await until(lambda: lab.collector.attempt_of("twice", pod.uid) == 2)
    await lab.complete("twice")
    assert (lab.text("twice", 1), lab.text("twice", 2)) == (b"first\n", b"second\n")
    assert lab.collector.attempts("twice") == 2


async def test_attempts_keep_their_numbers_when_pods_are_gone(
    api: KubernetesApi, place: str, tmp_path: Path
):
    async with LogLab(api, place, tmp_path) as lab:
        first = await lab.run("kept", "sh", "-c", "echo first; exit 1")
        await lab.complete("kept")
        second = await lab.run("kept", *counting(100, 50))
        await until(lambda: lab.text("kept", 2), 20)
        await lab.delete(first.name, 0)
        await until(lambda: _is_gone(lab, first.name), 20)
    async with LogLab(api, place, tmp_path) as lab:
        await until(lambda: lab.collector.attempt_of("kept", second.uid) == 2)
        await lab.complete("kept")
        assert (lab.text("kept", 1), lab.text("kept", 2)) == (b"first\n", counted(100))
        assert lab.log("kept", 1).gaps() == lab.log("kept", 2).gaps() == ()


async def _is_gone(lab: LogLab, name: str) -> bool:
    return await lab.pod(name) is None


async def test_restarts_within_a_pod_follow_each_other(lab: LogLab):
    program = """
        n=$(cat /shared/n 2>/dev/null || echo 0); echo $((n + 1)) >/shared/n
        for i in $(seq 50); do echo "$n.$i"; done; sleep 0.3; printf "end of $n"
        [ $n -ge 2 ]
    """
    await lab.run("again", "sh", "-c", program, restart="OnFailure")
    whole = [b"".join(b"%d.%d\n" % (n, i + 1) for i in range(50)) for n in range(3)]
    assert await lab.complete("again", 120) == b"".join(
        text + b"end of %d" % n for n, text in enumerate(whole)
    )
    assert lab.log("again").gaps() == ()


async def test_a_deleted_pod_is_read_to_its_end(lab: LogLab):
    program = """
import signal, time
def stop(*_):
    for number in range(200):
        print("stopping", number, flush=True)
        time.sleep(0.005)
    raise SystemExit(3)
signal.signal(signal.SIGTERM, stop)
print("ready", flush=True)
while True:
    time.sleep(1)
"""
    pods = [await lab.run(f"stopped-{n}", *python(program), grace_s=20) for n in range(12)]
    for number, pod in enumerate(pods):
        await until(lambda number=number: lab.text(f"stopped-{number}") == b"ready\n", 30)
        await lab.delete(pod.name, 20)
    whole = b"ready\n" + b"".join(b"stopping %d\n" % n for n in range(200))
    for number in range(12):
        assert await lab.complete(f"stopped-{number}", 60) == whole
        assert lab.log(f"stopped-{number}").gaps() == ()


async def test_a_pod_that_vanished_while_nobody_looked_leaves_a_gap(
    api: KubernetesApi, place: str, tmp_path: Path
):
    async with LogLab(api, place, tmp_path) as lab:
        pod = await lab.run("lost", *counting(10_000, 100))
        await until(lambda: lab.text("lost"), 20)
    await lab.delete(pod.name, 0)
    await until(lambda: _is_gone(lab, pod.name), 20)
    async with LogLab(api, place, tmp_path) as lab:
        text = await lab.complete("lost")
        assert counted(10_000).startswith(text)
        (gap,) = lab.log("lost").gaps()
        assert (gap.start, gap.end) == (len(text), len(text) + 1)
        assert "not known" in gap.reason


async def test_a_collector_that_is_killed_at_any_moment_loses_and_doubles_nothing(
    api: KubernetesApi, place: str, kubeconfig: Path, tmp_path: Path
):
    async with LogLab(api, place, tmp_path / "unused") as pods:
        await pods.run("counted", *counting(30_000, 1500))
        await pods.run(
            "long-lines",
            *python(
                "import time\nfor n in range(300):\n"
                " print(str(n) * 20000, flush=True)\n time.sleep(.06)"
            ),
        )
    server = LogProcess(kubeconfig, place, tmp_path / "data")
    for moment in (0.9, 1.3, 0.7, 1.1, 1.9, 0.8, 1.0, 1.5, 1.2, 1.4):
        await server.start()
        await asyncio.sleep(moment)
        await server.kill()
    async with LogLab(api, place, tmp_path / "data") as lab:
        assert await lab.complete("counted", 60) == counted(30_000)
        whole = b"".join(b"%d" % n * 20000 + b"\n" for n in range(300))
        assert await lab.complete("long-lines", 60) == whole
        assert lab.log("counted").gaps() == lab.log("long-lines").gaps() == ()


async def test_a_network_that_is_cut_again_and_again_loses_and_doubles_nothing(
    place: str, kubeconfig: Path, tmp_path: Path
):
    config = load_cluster(kubeconfig)
    async with (
        TcpProxy(config.server) as proxy,
        KubernetesApi(replace(config, server=proxy.url)) as api,
        LogLab(api, place, tmp_path) as lab,
    ):
        await lab.run("counted", *counting(20_000, 1500))
        await until(lambda: lab.text("counted"), 20)
        for moment in (0.5, 1.3, 0.2, 0.9):
            await asyncio.sleep(moment)
            proxy.reset()
            await asyncio.sleep(moment)
            await proxy.cut()
            await asyncio.sleep(moment)
            await proxy.restore()
        proxy.hold()
        await asyncio.sleep(2)
        proxy.release()
        assert await lab.complete("counted", 60) == counted(20_000)
        assert lab.log("counted").gaps() == ()


PADDED = """
import sys, time
begun = time.time()
for number in range({lines}):
    sys.stdout.write(f"{{number:09d}}" + "x" * 1013 + "\\n")
    if number % 300 == 299:
        sys.stdout.flush()
        time.sleep(max(0, begun + number / {per_second} - time.time()))
"""


async def test_a_rotation_while_nobody_reads_is_a_gap_and_one_while_somebody_does_is_none(
    api: KubernetesApi, place: str, tmp_path: Path
):
    lines = 60_000  # of 1 KiB; the node keeps 10 MiB in a file
    async with LogLab(api, place, tmp_path) as lab:
        program = PADDED.format(lines=lines, per_second=3000)
        pod = await lab.run("rotated", "python3", "-c", program)

        async def first_on_node() -> int:
            begin = await api.get(f"{lab.pods}/{pod.name}/log", {"limitBytes": "2046"})
            return next(iter(numbers(begin)), 0)

        await until(lambda: lab.log("rotated").end, 20)
        await until(first_on_node, 20, "the node has rotated its log")
    before = lab.text("rotated").count(b"\n")

    async def is_behind() -> bool:
        return await first_on_node() > before + 1

    await until(is_behind, 30, "the node has rotated what was not read")
    async with LogLab(api, place, tmp_path) as lab:
        text = await lab.complete("rotated", 60)
    (gap,) = lab.log("rotated").gaps()
    assert "rotated" in gap.reason
    assert numbers(text[: gap.start]) == list(range(numbers(text[: gap.start])[-1] + 1))
    after = numbers(text[gap.start :])
    assert after == list(range(after[0], lines))
    assert after[0] > before


def numbers(text: bytes) -> list[int]:
    """Those of the whole lines: a rotation may cut one, since containerd gives the new file
    to the next chunk of the pipe, not to the next line."""
    lines = text.split(b"\n")
    assert all(len(line) == 1022 for line in lines[1:-1])
    assert len(lines[0]) <= 1022 >= len(lines[-1])
    return [int(line[:9]) for line in lines if len(line) == 1022]


async def test_the_log_outlives_the_pod(lab: LogLab):
    pod = await lab.run("outlived", *counting(100, 1000))
    text = await lab.complete("outlived")
    await lab.delete(pod.name, 0)
    await until(lambda: _is_gone(lab, pod.name), 20)
    assert (lab.text("outlived"), lab.log("outlived").gaps()) == (text, ())
    assert lab.collector.is_complete("outlived")


async def test_a_job_that_is_forgotten_leaves_no_stream_and_can_be_removed(lab: LogLab):
    pod = await lab.run("forgotten", *counting(10_000, 100))
    await until(lambda: lab.text("forgotten"), 20)
    # Its state is known: there is no more to see of it that would make the lab look again.
    await until(lambda: lab.reflector.rows[pod.namespace, pod.name].phase == "Running", 20)
    await lab.collector.forget("forgotten")
    assert not [task for task in asyncio.all_tasks() if "forgotten" in task.get_name()]


async def test_how_many_requests_a_log_takes(lab: LogLab):
    await lab.run("cheap", "sh", "-c", "echo a; sleep 3; echo b")
    await lab.complete("cheap")
    assert lab.api.counts["get", "pods/log"] <= 3, json.dumps(str(lab.api.counts))
