"""What it costs a request that a decision point is asked over loopback, beside a bare round trip.

Bare is the same question, to the byte, by the same HTTP client on the same event loop to the same
decision point, from a process that does nothing else (``bare_question.py``). Requests to the two
servers and the bare question go by turns, one at a time: a question that follows upon another at
once meets a processor that still knows everything, as that of a service never does.

Ours decides in no time, which leaves nothing for the product's own part to hide behind. Cerbos is
asked, too, where it can be had.
"""

import json
import random
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from access_requests import WARM, Way, way, with_access
from access_site import BareQuestion, asking, deciding, issuing
from load import ROOT, Row, figures

sys.path.insert(0, str(ROOT))  # Cerbos is had as the tests have it

from tests.access.servers.cerbos import cerbos, program
from tests.access.servers.tools import ServerMissing

ROUNDS = 1000
ANYTHING = [{"actions": ["*"], "effect": "EFFECT_ALLOW", "roles": ["*"]}]


def remote(runs: int) -> list[Row]:
    with ExitStack() as stack:
        issuer = stack.enter_context(issuing())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mt-bench-")))
        point = stack.enter_context(deciding())
        recorded = way(stack, folder, with_access(folder / "ours", issuer, *asking(point.url)))
        recorded.connect()
        question = point.asked()
        places = {"ours, which decides in no time": (point.url, recorded)}
        if url := stack.enter_context(real_one(folder)):
            lines = 'engine = "authzen"', f'url = "{url}"'
            places["Cerbos"] = (
                url,
                way(stack, folder, with_access(folder / "cerbos", issuer, *lines)),
            )
        open_one = way(stack, folder)
        return [
            row
            for name, (url, decided) in places.items()
            for row in compared(runs, name, open_one, decided, (url, question))
        ]


@contextmanager
def real_one(folder: Path) -> Iterator[str | None]:
    """Where a Cerbos is that permits everything; None: it cannot be had here."""
    try:
        is_there = program().exists()
    except ServerMissing:
        is_there = False
    if not is_there:
        print("no Cerbos: left out", file=sys.stderr)
        yield None
        return
    policies = folder / "policies"
    policies.mkdir()
    for kind in ("training_job", "training_pipeline", "training_service"):
        policy = {"resource": kind, "version": "default", "rules": ANYTHING}
        document = {"apiVersion": "api.cerbos.dev/v1", "resourcePolicy": policy}
        (policies / f"{kind}.json").write_text(json.dumps(document))
    with cerbos(folder, policies) as server:
        yield server.url


def compared(
    runs: int, name: str, open_one: Way, decided: Way, asked: tuple[str, dict[str, object]]
) -> list[Row]:
    """The rows of one decision point."""
    url, question = asked
    beyond: list[float] = []
    bare: list[float] = []
    once = BareQuestion(url, str(question["path"]), str(question["body"]))
    try:
        for each in (open_one, decided):
            each.connect()
        for _ in range(WARM):
            once.ask()
        for _ in range(runs):
            more, round_trip = one_run(open_one, decided, once)
            beyond.append(more)
            bare.append(round_trip)
    finally:
        once.close()
    return [
        figures(f"bare round trip to {name}", "us", "-", bare),
        figures("decided by it, beyond the open one", "us", "-", beyond),
        figures(
            "the same, in bare round trips",
            "times",
            "under 1.5",
            [more / round_trip for more, round_trip in zip(beyond, bare, strict=True)],
        ),
    ]


def one_run(open_one: Way, decided: Way, once: BareQuestion) -> tuple[float, float]:
    """Microseconds beyond the open one, and of a bare round trip."""
    took: list[float] = []
    turns = [open_one.ask, decided.ask, lambda: took.append(once.ask())]
    for each in (open_one, decided):
        each.took.clear()
    for _ in range(ROUNDS):
        random.shuffle(turns)
        for turn in turns:
            turn()
    return decided.median - open_one.median, 1000 * statistics.median(took)
