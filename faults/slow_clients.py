"""A thousand clients that are as slow as they can be, while others are answered as ever.

slowhttptest's three modes: headers that never end, a body that never ends, an answer that is
hardly read. The attacker is a caller with a key, so that bodies and answers are reached at all.
Meanwhile a process of its own asks as anybody does, jobs run, and each is judged by the witness.
The server must cut what is too slow by itself, and have nothing left of it afterwards.
"""

import json
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from lab import HERE, Lab, Promise
from service import COMMAND, Service

CONNECTIONS = 1000
A_SECOND = 200  # connections that the attacker opens
P99_S = 1.0
CALM_S = 3.0  # for which the others are alone first
POST_S = 0.02  # that one of their POSTs then takes on two idle cores; longer is a slower machine
HELD_S = 40.0  # an answer that nobody reads is held for 30 s, all else less
LONG = 40_000  # pieces of the log that is read slowly: 9 MB, more than kernel and server take in
POSTS = 300  # more than there is time for

ACCESS = """
local_token = true

[api_keys]
file = "keys.json"

[decisions]
engine = "roles"
file = "roles.toml"
"""
ROLES = """
[roles.anybody]
service = ["list"]
allow = [{ actions = ["*"], pipelines = ["*"] }]

[[bindings]]
role = "anybody"
principals = ["local", "key/attacker", "key/regular"]
"""


@dataclass
class Attacked:
    """The service, and who knows its keys."""

    lab: Lab
    service: Service
    attacker: str
    regular: str
    promises: list[Promise]
    """the first has the log that is read slowly"""
    pace: float = 1.0
    """how much longer than on two idle cores things take here"""

    @property
    def pid(self) -> int:
        assert self.service.process
        return self.service.process.pid

    def connections(self) -> set[str]:
        """Sockets that the server has open towards clients, by inode."""
        port = f":{self.service.address[1]:04X}"
        lines = Path(f"/proc/{self.pid}/net/tcp").read_text().splitlines()[1:]
        rows = [line.split() for line in lines]
        # The one that listens is no connection; 0 is one that nobody has a descriptor of.
        return {row[9] for row in rows if row[1].endswith(port) and row[3] != "0A"} - {"0"}

    def memory(self) -> int:
        """Resident, in MiB."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        [line] = [line for line in status.splitlines() if line.startswith("VmRSS")]
        return int(line.split()[1]) >> 10


def campaign(lab: Lab, count: int) -> None:
    """Each mode for ``count`` seconds."""
    if shutil.which("slowhttptest") is None:
        raise RuntimeError("slowhttptest is not installed: apt-get install slowhttptest")
    attacked = started(lab)
    lab.figures["calm"], attacked.pace = calm(attacked)
    for mode in MODES:
        one_mode(attacked, mode, count)
        lab.rounds += 1
    for promise in attacked.promises:
        attacked.service.wait_for(promise["name"], "ended")
    lab.judge(attacked.service, attacked.promises)
    lab.remove_all(attacked.service)


def started(lab: Lab) -> Attacked:
    (lab.root / "access.toml").write_text(ACCESS)
    roles = lab.root / "roles.toml"
    roles.write_text(ROLES)
    roles.chmod(0o644)
    attacker, regular = (make_key(lab, name) for name in ("attacker", "regular"))
    service = lab.service("--slots", "2", "--access", str(lab.root / "access.toml")).up()
    long = lab.promise(pieces=LONG, pause=0)
    lab.submit(service, long)
    service.wait_for(long["name"], "ended")
    return Attacked(lab, service, attacker, regular, [long])


def calm(attacked: Attacked) -> tuple[dict, float]:
    """What others wait while nobody attacks, and how much slower the machine is for it."""
    regulars = Regulars(attacked)
    time.sleep(CALM_S)
    waited = regulars.finish()["waited"]
    return figures(waited), max(1.0, p(50, waited["post"]) / POST_S)


def make_key(lab: Lab, name: str) -> str:
    argv = [
        COMMAND, "access", "key", "create", name, "--actions", "*", "--pipelines", "*",
        "--expires", "1d", "--file", str(lab.root / "keys.json"),
    ]  # fmt: skip
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


@dataclass(frozen=True)
class Mode:
    """One way to be slow, in slowhttptest's options."""

    name: str
    a_second: int
    """connections that are opened: enough to have all of them at once before the first is cut"""
    path: str
    options: str


MODES = (
    Mode("slow headers", 250, "/training-jobs", "-H -i 2 -x 24"),
    Mode(
        "slow body",
        400,
        "/training-jobs?pipeline=words",
        "-B -i 2 -x 10 -s 8192 -f application/json",
    ),
    # Less than one caller may ask for: more would be a flood, and no slowness.
    Mode("slow read", 85, "/training-jobs/{long}", "-X -w 16 -y 64 -n 5 -z 16"),
)


def one_mode(attacked: Attacked, mode: Mode, seconds: int) -> None:
    lab = attacked.lab
    memory = attacked.memory()
    watch = Watch(attacked)
    regulars = Regulars(attacked)
    attack(attacked, mode, seconds)
    told = regulars.finish()
    watch.finish()
    lab.until(lambda: not attacked.connections(), f"{mode.name}: connections are left open", 10)
    judge_waits(lab, mode, told, P99_S * attacked.pace)
    lab.expect(
        watch.most > 0.9 * CONNECTIONS, f"{mode.name}: only {watch.most} connections at once"
    )
    # A few that took a last byte just before they were looked at are looked at once more.
    held = p(99, watch.lives())
    lab.expect(held < HELD_S, f"{mode.name}: connections were held for {held:.0f} s")
    lab.figures[mode.name] = figures(told["waited"]) | {
        "connections": watch.most,
        "held_s": round(held),
        "left": len(attacked.connections()),
        "MiB": f"{memory}/{watch.memory}/{attacked.memory()}",
    }


def attack(attacked: Attacked, mode: Mode, seconds: int) -> None:
    """Again and again, until the time is over."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        with (attacked.lab.root / "attack.log").open("wb") as log:
            attacker = subprocess.Popen(argv(attacked, mode), stdout=log, stderr=log)
            try:
                attacker.wait(timeout=left)
            except subprocess.TimeoutExpired:
                attacker.kill()
                attacker.wait()


def argv(attacked: Attacked, mode: Mode) -> list[str]:
    path = mode.path.format(long=attacked.promises[0]["name"])
    # It has no option for a header of one's own, but sends a cookie as it is given.
    cookie = f"a=b\r\nAuthorization: Bearer {attacked.attacker}"
    return [
        "slowhttptest", *mode.options.split(), "-c", str(CONNECTIONS), "-r", str(mode.a_second),
        "-l", "300", "-p", "3", "-j", cookie, "-u", attacked.service.url + path,
    ]  # fmt: skip


class Watch:
    """What the server has while it is attacked: connections, for how long, and memory."""

    def __init__(self, attacked: Attacked) -> None:
        self.attacked = attacked
        self.most = self.memory = 0
        self.seen: dict[str, tuple[float, float]] = {}  # of each connection, first and last
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.look, daemon=True)
        self.thread.start()

    def look(self) -> None:
        while not self.over.wait(0.2):
            now = time.monotonic()
            connections = self.attacked.connections()
            for each in connections:
                self.seen[each] = self.seen.get(each, (now, now))[0], now
            self.most = max(self.most, len(connections))
            self.memory = max(self.memory, self.attacked.memory())

    def lives(self) -> list[float]:
        return [last - first for first, last in self.seen.values()]

    def finish(self) -> None:
        self.over.set()
        self.thread.join()


class Regulars:
    """``regular_callers.py``, from now until ``finish``."""

    def __init__(self, attacked: Attacked) -> None:
        lab, service = attacked.lab, attacked.service
        self.attacked = attacked
        self.promises = {
            each["seed"]: each for each in (lab.promise(pieces=2) for _ in range(POSTS))
        }
        case = lab.root / "callers.json"
        case.write_text(
            json.dumps(
                {
                    "address": service.address,
                    "headers": {"Authorization": f"Bearer {attacked.regular}"},
                    "path": "/training-jobs?pipeline=words",
                    "given": [lab.parameters(each) for each in self.promises.values()],
                }
            )
        )
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-E", str(HERE / "regular_callers.py"), str(case)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def finish(self) -> dict:
        """What they saw; their jobs are among those that will be judged."""
        told = json.loads(self.process.communicate()[0])
        for each in told["posted"]:
            promise = self.promises[each["seed"]]
            promise.update(each)
            self.attacked.promises.append(promise)
        return told


def judge_waits(lab: Lab, mode: Mode, told: dict, bound_s: float) -> None:
    lab.expect(not told["faults"], f"{mode.name}: others were refused: {told['faults'][:5]}")
    for kind, waited in told["waited"].items():
        late = p(99, waited)
        lab.expect(late < bound_s, f"{mode.name}: p99 of {kind} is {late:.2f} s")


def figures(waited: dict[str, list[float]]) -> dict[str, str]:
    """Of each kind how many, then p50/p99/max in milliseconds."""
    return {
        kind: f"{len(each)}:{p(50, each) * 1e3:.0f}/{p(99, each) * 1e3:.0f}/{max(each) * 1e3:.0f}"
        for kind, each in waited.items()
    }


def p(percent: int, waited: list[float]) -> float:
    return sorted(waited)[min(len(waited) - 1, len(waited) * percent // 100)]
