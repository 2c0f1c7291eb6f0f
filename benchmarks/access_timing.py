"""Whether the time of an answer tells a hidden job from one that is not there.

    .venv/bin/python benchmarks/access_timing.py [--runs N] [--tries N]

Somebody who may do nothing asks for a job that is there and for one that is not, by turns in an
order that chance makes; what is told is how far the two medians are apart. Once with a roles file,
and once with a decision point that takes a while for each question, since whether it was asked at
all would show there. The keys are of twenty holders, whose shares of requests are the default.
"""

import argparse
import hashlib
import http.client
import json
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from pathlib import Path

from load import Row, Server, figures, make_pipeline, no_delay, serving, table

TRIES = 1000  # of each kind, all runs together
HOLDERS = 20
ANSWER_S = 0.005  # seconds that the decision point takes: one in the same building
MARK_MS = 5.0
ACCESS = """
local_token = true
[api_keys]
file = "keys.json"
[decisions]
"""
ROLES = """
[roles.operator]
service = ["list"]
allow = [{ actions = ["*"], pipelines = ["*"] }]
[[bindings]]
role = "operator"
principals = ["local"]
"""


class SlowPoint(BaseHTTPRequestHandler):
    """Says yes to the local token's holder, no to everybody else, and both after a while."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        time.sleep(ANSWER_S)
        body = json.dumps({"decision": asked["subject"]["id"] == "local"}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def slow_point() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), SlowPoint)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def write_keys(path: Path) -> list[str]:
    """Keys that are good for everything, of holders who may do nothing."""
    now, keys, records = time.time(), [], []
    for number in range(HOLDERS):
        identity = f"holder{chr(97 + number // 10)}{'abcdefghij'[number % 10]}"
        secret = hashlib.sha256(identity.encode()).hexdigest()[:43]
        keys.append(f"mta_{identity}_{secret}")
        records.append({
            "id": identity, "name": identity, "pipelines": ["*"],
            "digest": hashlib.sha256(secret.encode()).hexdigest(),
            "actions": ["read", "read_logs"], "created_at": now, "expires_at": now + 80_000,
        })  # fmt: skip
    path.touch(0o600)
    path.write_text(json.dumps({"keys": records}))
    return keys


def median_apart(
    connection: http.client.HTTPConnection, paths: tuple[str, str], keys: Iterator[str], tries: int
) -> float:
    """Milliseconds between the medians of the answers to two paths, each asked so often."""
    took: dict[str, list[float]] = {path: [] for path in paths}
    order = [*paths] * tries
    random.shuffle(order)
    for path in order:
        headers = {"Authorization": f"Bearer {next(keys)}"}
        began = time.perf_counter()
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        body = answer.read()
        took[path].append(1000 * (time.perf_counter() - began))
        if answer.status != 404:
            raise RuntimeError(body.decode())
    one, other = (statistics.median(some) for some in took.values())
    return abs(one - other)


def timing(runs: int, tries: int = TRIES) -> list[Row]:
    """How far hidden and absent are apart, by who decides and by how many questions it takes."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mt-bench-")))
        make_pipeline(folder / "pipelines", "one-line", "print('one line', flush=True)\n")
        url = stack.enter_context(slow_point())
        (folder / "roles.toml").write_text(ROLES)
        keys = cycle(write_keys(folder / "keys.json"))
        rows: list[Row] = []
        for name, lines in (
            ("roles file", 'engine = "roles"\nfile = "roles.toml"\n'),
            (f"decision point of {1000 * ANSWER_S:g} ms", f'engine = "authzen"\nurl = "{url}"\n'),
        ):
            access = folder / f"access-{len(rows)}.toml"
            access.write_text(ACCESS + lines)
            with serving("--access", str(access), pipelines=folder / "pipelines") as server:
                for rest, asked in (("/status", "status"), ("", "log")):
                    paths = hidden_and_absent(server, rest)
                    connection = server.connection()
                    no_delay(connection)
                    median_apart(connection, paths, keys, 20)  # warm
                    values = [
                        median_apart(connection, paths, keys, max(1, tries // runs))
                        for _ in range(runs)
                    ]
                    what = f"hidden job's {asked} and an absent one's apart, {name}"
                    rows.append(figures(what, "ms", f"< {MARK_MS:g}", values))
                    connection.close()
        return rows


def hidden_and_absent(server: Server, rest: str) -> tuple[str, str]:
    name = server.create("one-line")
    server.wait(name)
    absent = name[:-1] + ("0" if name[-1] != "0" else "1")
    return f"/training-jobs/{name}{rest}", f"/training-jobs/{absent}{rest}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--tries", type=int, default=TRIES, help="of each kind, in all runs")
    given = parser.parse_args()
    print(table(timing(given.runs, given.tries)))


if __name__ == "__main__":
    main()
