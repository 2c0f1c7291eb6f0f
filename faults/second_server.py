"""A second server on the same data folder is refused, and names the first."""

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

from lab import Lab
from service import Service

TOGETHER = 2  # second servers at a time
REFUSED_S = 10.0


def campaign(lab: Lab, count: int) -> None:
    """``count`` second servers, while the first works; then two that start at one moment."""
    service = lab.service("--slots", "1").up()
    promise = lab.promise(pieces=10)
    lab.submit(service, promise)
    with ThreadPoolExecutor(TOGETHER) as together:
        slowest = max(together.map(lambda _: refused(lab, service), range(count)))
    service.wait_for(promise["name"], "ended")
    lab.judge(service, [promise])
    lab.remove_all(service)
    service.end()
    race(lab, service)
    lab.figures |= {"slowest to be refused, seconds": round(slowest, 2)}


def refused(lab: Lab, first: Service) -> float:
    began = time.monotonic()
    second = subprocess.run(first.argv, capture_output=True, timeout=REFUSED_S, check=False)
    words = second.stderr.decode()
    lab.expect(second.returncode not in {0, -9}, f"the second left with {second.returncode}")
    lab.expect(first.url in words, f"the first is not named: {words}")
    lab.expect("Traceback" not in words, f"a stack: {words}")
    lab.expect(b"ready" not in second.stdout, "the second said that it is ready")
    lab.expect(first.is_alive and first.ask("GET", "/readyz").status == 200, "the first is gone")
    lab.rounds += 1
    return time.monotonic() - began


def race(lab: Lab, first: Service) -> None:
    """Of two that start at one moment, one serves."""
    other = lab.service("--slots", "1", data=first.data)
    with ThreadPoolExecutor(2) as together:
        came_up = list(together.map(lambda each: each.start(), [first, other]))
    lab.expect(sorted(came_up) == [False, True], f"of two at one moment came up: {came_up}")
