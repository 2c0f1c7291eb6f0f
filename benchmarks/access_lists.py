"""What a list costs somebody who may not read all of it, and what the decision point is asked.

Who may read what is held against the file of the ledger itself, read by SQL of the benchmark's
own: a fast page that shows too much, or too little, is no figure.
"""

import http.client
import json
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from access_site import access_file, asking, deciding, issuing
from load import ROOT, Row, Server, figures, no_delay, percentile

FIRST_PAGE = "/training-jobs?limit=100"
TIMES = 200


@contextmanager
def ledger_of(kind: str) -> Iterator[Path]:
    """A data folder with a ledger of ``access_ledger.py`` in it."""
    data = Path(tempfile.mkdtemp(prefix=f"mt-bench-{kind}-"))
    try:
        print(f"filling the ledger {kind!r} ...", file=sys.stderr)
        script, path = ROOT / "benchmarks/access_ledger.py", data / "ledger.sqlite3"
        subprocess.run([sys.executable, str(script), str(path), kind], check=True)
        yield data
    finally:
        shutil.rmtree(data, ignore_errors=True)


@contextmanager
def started(*options: str, data: Path) -> Iterator[Server]:
    """A server whose jobs are nobody's: nothing of them is to be ended."""
    server = Server(*options, data=data)
    try:
        yield server.start()
    finally:
        server.stop()


def get(
    connection: http.client.HTTPConnection, path: str, token: str
) -> tuple[list[str], str | None]:
    """The names in a list, and where the next page is."""
    connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise RuntimeError(body.decode())
    link = answer.headers["Link"]
    return [job["name"] for job in json.loads(body)], link and link[1 : link.index(">")]


# One question for a list


def one_question(runs: int) -> list[Row]:
    batches: dict[str, list[float]] = {"/training-jobs": [], FIRST_PAGE: []}
    took: list[float] = []
    with issuing() as issuer, deciding() as point, ledger_of("twenty") as data:
        access = access_file(data, issuer, *asking(point.url))
        token = issuer.token("lea")
        for _ in range(runs):
            with started("--access", str(access), data=data) as server:
                connection = server.connection()
                for path, counts in batches.items():
                    before = len(point.asked()["requests"])
                    began = time.perf_counter()
                    names, _ = get(connection, path, token)
                    took.append(1000 * (time.perf_counter() - began))
                    asked = point.asked()["requests"][before:]
                    expected = 100 if "limit" in path else 10_000
                    if len(set(names)) != expected or asked[0] != 1 or sum(asked) != 21:
                        raise RuntimeError(f"{len(names)} jobs, asked {asked}")
                    counts.append(len(asked) - 1)
                connection.close()
    what = "10,000 jobs in 20 pipelines: requests that ask about them"
    return [
        figures(f"{what}, whole list", "requests", "1", batches["/training-jobs"]),
        figures(f"{what}, first page", "requests", "1", batches[FIRST_PAGE]),
        figures("the same whole list, until its end", "ms", "-", took[::2]),
        figures("the same first page", "ms", "-", took[1::2]),
    ]


# A million jobs


@dataclass(frozen=True)
class Reader:
    """Somebody, and the jobs that they may read as SQL tells them."""

    what: str
    token: str
    where: str


def million(runs: int) -> list[Row]:
    with issuing() as issuer, ledger_of("million") as data:
        access = access_file(data, issuer)
        owner = owner_of_100(data)
        readers = [
            Reader("all", issuer.token("olga", groups=("operators",)), "1"),
            Reader("one pipeline", issuer.token("rita", groups=("readers",)), pipeline("07")),
            Reader(
                "one job in 10,000",
                issuer.token(owner.removeprefix("corp/"), groups=("owners",)),
                f"{pipeline('07')} AND owner = '{owner}'",
            ),
        ]
        first: dict[str, list[float]] = {each.what: [] for each in readers}
        median: dict[str, list[float]] = {each.what: [] for each in readers}
        worst: dict[str, list[float]] = {each.what: [] for each in readers}
        starts: list[float] = []
        for _ in range(runs):
            with started("--access", str(access), data=data) as server:
                starts.append(server.ready_s)
                for reader in readers:
                    took = page_times(server, reader.token)
                    first[reader.what].append(took[0])
                    median[reader.what].append(percentile(took, 0.5))
                    worst[reader.what].append(percentile(took, 0.99))
                    require_right_pages(server, reader, data)
        what = "first page of 1,000,000 for a reader of"
        rows = [figures("server start with 1,000,000 jobs and access", "s", "under 3", starts)]
        for reader in readers:
            name = reader.what
            rows += [
                figures(f"{what} {name}, p50", "ms", "under 50", median[name]),
                figures(f"{what} {name}, p99", "ms", "under 50", worst[name]),
                figures("the same, the first after a start", "ms", "-", first[name]),
            ]
        return rows


def pipeline(number: str) -> str:
    return f"pipeline = 'pipeline-{number}'"


def owner_of_100(data: Path) -> str:
    """The owner with the fewest jobs of a pipeline that still make a page and one more."""
    [[owner]] = select(
        data,
        f"SELECT owner FROM jobs WHERE {pipeline('07')} "
        "GROUP BY owner HAVING count(*) > 100 ORDER BY count(*) LIMIT 1",
    )
    return str(owner)


def select(data: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(data / "ledger.sqlite3")) as db:
        return db.execute(query).fetchall()


def page_times(server: Server, token: str) -> list[float]:
    """Milliseconds of each first page."""
    connection = server.connection()
    no_delay(connection)
    took = []
    for _ in range(TIMES):
        began = time.perf_counter()
        names, link = get(connection, FIRST_PAGE, token)
        took.append(1000 * (time.perf_counter() - began))
        if len(names) != 100 or link is None:
            raise RuntimeError(f"{len(names)} jobs, and {link} is the next page")
    connection.close()
    return took


def require_right_pages(server: Server, reader: Reader, data: Path) -> None:
    """Two pages are what is to be read and no more; the last page has no next one."""
    expected = [
        name
        for (name,) in select(
            data,
            f"SELECT name FROM jobs WHERE {reader.where} ORDER BY sequence DESC LIMIT 201",
        )
    ]
    connection = server.connection()
    names, link = get(connection, FIRST_PAGE, reader.token)
    assert link
    more, last = get(connection, link, reader.token)
    connection.close()
    if names + more != expected[:200] or (last is None) != (len(expected) <= 200):
        raise RuntimeError(f"a reader of {reader.what} is shown other jobs than theirs")
