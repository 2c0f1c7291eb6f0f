"""What it costs a request that somebody must be known and permitted, seen from outside.

The same request for the status of one job goes by turns, in an order that chance makes anew each
time, to servers that differ in nothing but their access file; the first of them has none. So
whatever else the machine does falls upon all of them alike. What is told is the difference of the
medians, and beside it that of the processor time that the servers used, which knows less of how
busy the machine is.

The audit line is part of it, as it is part of deciding. Each user's share of requests is the
default one, so the tokens are of twenty users in turn.
"""

import http.client
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

from access_site import Issuer, access_file, issuing
from load import Row, Server, cpu_s, figures, make_pipeline, no_delay, serving

ROUNDS = 50
IN_A_ROW = 20  # requests to one server before the next has its turn, as one caller sends several
WARM = 50  # requests to each server before it counts
USERS = 20
ALGORITHMS = ("ES256", "RS256")
PIPELINE = "fraud-one-line"


@dataclass
class Way:
    """A server, and the credentials that it is asked with."""

    server: Server
    path: str
    tokens: Iterator[str]
    connection: http.client.HTTPConnection = field(init=False)
    took: list[float] = field(default_factory=list)
    """microseconds of each request"""

    def connect(self) -> None:
        """Only when all servers run: a connection that is not used ends by itself."""
        self.connection = self.server.connection()
        no_delay(self.connection)
        for _ in range(WARM):
            self.ask()

    def ask(self) -> None:
        headers = {"Authorization": f"Bearer {next(self.tokens)}"}
        began = time.perf_counter()
        self.connection.request("GET", self.path, headers=headers)
        answer = self.connection.getresponse()
        body = answer.read()
        self.took.append(1e6 * (time.perf_counter() - began))
        if answer.status != 200:
            raise RuntimeError(body.decode())

    @property
    def median(self) -> float:
        return statistics.median(self.took)

    @property
    def cpu_s(self) -> float:
        assert self.server.process
        return cpu_s(self.server.process.pid)


def with_access(folder: Path, issuer: Issuer, *decisions: str) -> Path:
    folder.mkdir()
    return access_file(folder, issuer, *decisions)


def way(
    stack: ExitStack, folder: Path, access: Path | None = None, tokens: list[str] | None = None
) -> Way:
    """A server with one job that has ended; without tokens the local one is used."""
    make_pipeline(folder / "pipelines", PIPELINE, "print('one line', flush=True)\n")
    options = ("--access", str(access)) if access else ()
    server = stack.enter_context(serving(*options, pipelines=folder / "pipelines"))
    name = server.create(PIPELINE)
    server.wait(name)
    return Way(server, f"/training-jobs/{name}/status", cycle(tokens or [server.token]))


def requests(runs: int) -> list[Row]:
    with ExitStack() as stack:
        issuer = stack.enter_context(issuing())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mt-bench-")))
        roles = with_access(folder / "roles", issuer)
        tokens = {
            name: [issuer.token(f"user-{n}", name, ("data-science",)) for n in range(USERS)]
            for name in ALGORITHMS
        }
        ways = {
            "open": way(stack, folder),
            "roles": way(stack, folder, roles),
            **{name: way(stack, folder, roles, some) for name, some in tokens.items()},
        }
        for each in ways.values():
            each.connect()
        return rows([one_run(ways, issuer, tokens) for _ in range(runs)])


def one_run(ways: dict[str, Way], issuer: Issuer, tokens: dict[str, list[str]]) -> dict[str, float]:
    """The figures of one run, by name."""
    before = {name: each.cpu_s for name, each in ways.items()}
    for each in ways.values():
        each.took.clear()
    turns = list(ways.values())
    for _ in range(ROUNDS):
        random.shuffle(turns)
        for each in turns:
            for _ in range(IN_A_ROW):
                each.ask()
    used = {name: 1e6 * (each.cpu_s - before[name]) / len(each.took) for name, each in ways.items()}
    checking = {name: issuer.signature_us(some[0]) for name, some in tokens.items()}
    found = {"open": ways["open"].median}
    for name, each in ways.items():
        aside = checking.get(name, 0.0)
        found[f"{name} beyond"] = each.median - found["open"] - aside
        found[f"{name} beyond, CPU"] = used[name] - used["open"] - aside
    return found | {f"signature {name}": us for name, us in checking.items()}


def rows(found: list[dict[str, float]]) -> list[Row]:
    def row(what: str, target: str, name: str) -> Row:
        return figures(what, "us", target, [each[name] for each in found])

    result = [
        row("status of a job, open", "-", "open"),
        row("decided by roles, beyond the open one", "under 100", "roles beyond"),
        row("the same, CPU of the server", "-", "roles beyond, CPU"),
    ]
    for name in ALGORITHMS:
        what = f"{name} token, decided by roles, beyond the open one, check of its signature aside"
        result += [
            row(what, "under 300", f"{name} beyond"),
            row("the same, CPU of the server", "-", f"{name} beyond, CPU"),
            row("the check of its signature alone", "-", f"signature {name}"),
        ]
    return result
