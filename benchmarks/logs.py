"""How fast a log takes bytes and gives them back. Run by hand; prints JSON.

    .venv/bin/python benchmarks/logs.py [--size-mb 1024] [--followers 2000]

No HTTP here: these are the floors on which the service's own figures stand. Load comes from
other processes, and memory is measured in a process that does nothing else.
"""

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from contextlib import aclosing
from pathlib import Path

from model_training.logs.follow import Chunk, Followers
from model_training.logs.segments import LogView, SegmentWriter

LINE = "epoch 12/100, batch 3456/9999: train loss 0.12345, validation loss 0.23456"


def capture(folder: Path, size: int) -> dict[str, float]:
    """A pipe into the log, as a supervisor does it."""
    begun = time.perf_counter()
    with subprocess.Popen(
        ["sh", "-c", f"yes '{LINE}' | head -c {size}"], stdout=subprocess.PIPE, bufsize=0
    ) as job:
        writer = SegmentWriter(folder)
        while data := os.read(job.stdout.fileno(), 1 << 16):
            writer.write(data, time.time_ns())
    captured = time.perf_counter()
    writer.close()
    closed = time.perf_counter()
    return {
        "capture_mb_s": size / 1e6 / (captured - begun),
        "close_ms": (closed - captured) * 1e3,
        "index_bytes": sum(file.stat().st_size for file in folder.glob("*.index")),
    }


def equal(folder: Path, size: int) -> bool:
    """Whether the log holds what was printed, said by programs that know nothing of us."""
    script = f"cat {folder}/*.log | cmp - <(yes '{LINE}' | head -c {size})"
    return subprocess.run(["bash", "-c", script], check=False).returncode == 0


def tail(folder: Path) -> float:
    """Milliseconds for the last 100 lines, with a view that knows nothing yet; best of 5."""
    times = []
    for _ in range(5):
        begun = time.perf_counter()
        log = LogView(folder)
        offset = log.tail_offset(100)
        text = b"".join(block.data for block in log.blocks(offset, log.end))
        times.append((time.perf_counter() - begun) * 1e3)
        assert text.count(b"\n") in (99, 100)
    return min(times)


# The kernel's own high-water mark; getrusage would count what the parent had before exec.
WHOLE = """
import json, sys, time
from pathlib import Path
from model_training.logs.segments import LogView

def peak_kb():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])

log = LogView(Path(sys.argv[1]))
before, begun, size = peak_kb(), time.perf_counter(), 0
for block in log.blocks(0, log.end):
    size += len(block.data)
took = time.perf_counter() - begun
grown = (peak_kb() - before) / 1024
print(json.dumps({"whole_mb_s": size / 1e6 / took, "whole_memory_growth_mb": grown}))
"""

PRINTER = """
import sys, time
from pathlib import Path
from model_training.logs.segments import SegmentWriter
writer = SegmentWriter(Path(sys.argv[1]))
for _ in range(int(sys.argv[2])):
    writer.write(b"%d\\n" % time.monotonic_ns(), time.time_ns())
    time.sleep(0.1)
writer.close()
"""


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def followed(folder: Path, count: int, seconds: int) -> dict[str, float]:
    """Delays from a print to its delivery, 10 lines a second, for this many followers."""
    followers, ended = Followers(), asyncio.Event()
    delays: list[float] = []

    async def follow() -> None:
        async with aclosing(followers.follow(folder, 0, ended)) as stream:
            async for item in stream:
                if not isinstance(item, Chunk):
                    continue  # a nudge
                first = int(item.data[: item.data.index(b"\n")])  # the oldest waited longest
                delays.append((time.monotonic_ns() - first) / 1e6)

    before = resident()
    tasks = [asyncio.create_task(follow()) for _ in range(count)]
    await asyncio.sleep(1)
    job = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PRINTER, str(folder), str(seconds * 10)
    )
    busy = time.process_time()
    await asyncio.sleep(seconds / 2)
    memory = resident() - before
    await job.wait()
    ended.set()
    followers.nudge(folder)
    await asyncio.gather(*tasks)
    busy = time.process_time() - busy
    delays.sort()
    return {
        "followers": count,
        "slowest_delivery_p50_ms": delays[len(delays) // 2],
        "slowest_delivery_p99_ms": delays[len(delays) * 99 // 100],
        "cpu_share": busy / seconds,
        "memory_a_follower_kb": memory / count / 1e3,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size-mb", type=int, default=1024)
    parser.add_argument("--followers", type=int, default=2000)
    options = parser.parse_args()
    size = options.size_mb << 20
    report: dict[str, object] = {
        "machine": f"{os.cpu_count()} CPUs, {platform.platform()}",
        "python": platform.python_version(),
    }
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as name:
        folder = Path(name) / "large"
        report |= capture(folder, size)
        report["bytes_equal"] = equal(folder, size)
        report["tail_100_ms"] = tail(folder)
        whole = [sys.executable, "-c", WHOLE, str(folder)]
        report |= json.loads(subprocess.run(whole, check=True, capture_output=True).stdout)
        report |= asyncio.run(followed(Path(name) / "followed", options.followers, 10))
    print(json.dumps({k: round(v, 2) if isinstance(v, float) else v for k, v in report.items()}))


if __name__ == "__main__":
    main()
