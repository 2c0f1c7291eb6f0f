"""Many running jobs, the server killed under them: the next one adopts all of them, at once.

Three times over the same jobs, as one start of a process tells as much about the machine's other
work as about the service; the median counts. On a machine on which a service without any job takes
longer to start than it should, adoption may take longer by as much.
"""

import statistics
import time
from concurrent.futures import ThreadPoolExecutor

from lab import Lab, Promise
from service import Service

ADOPTED_S = 2.0  # from the start of the process until all are listed as running
IDLE_S = 0.5  # the same of a service without jobs, on a machine as it should be
STARTED_S = 120.0  # for the jobs to start in the first place; what takes long is their Pythons
CALLERS = 8
ADOPTIONS = 3


def campaign(lab: Lab, count: int) -> None:
    """``count`` jobs, adopted by three servers, one after the other."""
    service = lab.service("--slots", str(count)).up()
    gate = lab.root / "gate"
    promises = [
        lab.promise(pieces=3, exit_code=number % 5, on_term="9", gate=str(gate))
        for number in range(count)
    ]
    with ThreadPoolExecutor(CALLERS) as callers:
        list(callers.map(lambda promise: lab.submit(service, promise), promises))
    lab.until(lambda: running(service) == count, "not all jobs are running", STARTED_S)
    took = [adopt(service, count) for _ in range(ADOPTIONS)]
    idle = statistics.median(start_idle(lab) for _ in range(ADOPTIONS))
    lab.figures |= {
        "jobs": count,
        "seconds to adopt": " ".join(f"{each:.2f}" for each in took),
        "seconds to start without jobs": round(idle, 2),
    }
    median = statistics.median(took)
    bound = ADOPTED_S * max(1.0, idle / IDLE_S)
    lab.expect(median < bound, f"adopted after {median:.2f} s, and {bound:.2f} s are the most")
    gate.touch()
    finish(lab, service, promises)
    lab.rounds = ADOPTIONS


def adopt(service: Service, count: int) -> float:
    """Kill the server and start it; seconds until it is ready and lists them all as running."""
    service.end()
    service.up()
    while running(service) != count:
        if time.monotonic() - service.started_at > STARTED_S:
            raise RuntimeError(f"{running(service)} of {count} jobs were adopted")
        time.sleep(0.01)
    return time.monotonic() - service.started_at


def start_idle(lab: Lab) -> float:
    """Seconds until a service is ready that has nothing to do."""
    service = lab.service()
    took = service.up().wait_ready()
    service.end()
    return took


def running(service: Service) -> int:
    return len(service.insist("GET", "/training-jobs?state=running").json)


def finish(lab: Lab, service: Service, promises: list[Promise]) -> None:
    def nobody_runs() -> bool:
        return not service.insist("GET", "/training-jobs?state=active").json

    lab.until(nobody_runs, "not all jobs have ended", STARTED_S)
    lab.judge(service, promises)
    lab.remove_all(service)
