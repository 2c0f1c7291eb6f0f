"""Every route and method, for every credential, under every way a decision point can behave.

One real service, one decision point that changes its mind, and the table in
``access_expectations.py``. A cell is one request; what differs from the table is listed whole, so
that one run tells everything.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest
from fastapi.routing import APIRoute

from tests.api.access_expectations import (
    BAD_CREDENTIALS,
    ELSEWHERE,
    HIDDEN,
    NOWHERE,
    OTHER_METHODS,
    PROBES,
    ROWS,
    UNSEEN,
    WRONG_METHOD,
    Row,
)
from tests.api.access_world import (
    DECISIONS,
    KEYS,
    POLICIES,
    Caller,
    Sent,
    World,
    bad_credentials,
    bearer,
    world_in,
)
from tests.api.asking import Asking, Cell, Headers
from tests.api.kept import kept, states
from tests.api.lab import Lab

LANES = 6  # connections at once: more would only wait, and a decision has two seconds
LANES_OF_SLOW = 200  # enough that nobody waits for another's two seconds


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world_in(tmp_path_factory.mktemp("matrix")) as one:
        yield one


# The table as requests


def absent_of(name: str) -> str:
    return name[:-1] + ("0" if name[-1] != "0" else "1")


def filled(path: str, name: str) -> str:
    parts = {"{name}": name, "{path}": "model.json", "{pipeline}": "quick"}
    for part, text in parts.items():
        path = path.replace(part, text)
    return path


def target_of(row: Row, name: str, more: str = "") -> str:
    query = "&".join(part for part in (row.query, more) if part)
    return filled(row.path or row.route, name) + (f"?{query}" if query else "")


def headers_of(row: Row, sent: Sent) -> Headers:
    return [*sent.headers, *([("Accept", row.accept)] if row.accept else [])]


@dataclass
class Walk:
    """The cells under one decision."""

    world: World
    decision: str
    made: dict[str, str] = field(default_factory=dict)
    """jobs made to be changed, and what is to come of each"""
    created: int = 0

    @property
    def column(self) -> str:
        return self.decision if self.decision in POLICIES else "unanswered"

    def prepare(self) -> dict[tuple[int, str], str]:
        """A job of its own for each cell that may change one."""
        names = {
            (at, caller.name): self.world.create(caller.sent, row.job)
            for at, row in enumerate(ROWS)
            for caller in self.world.callers
            if row.effect in {"stopped", "removed"} and self._good(row)[0] == "2"
        }
        self.made = {name: ROWS[at].effect for (at, _), name in names.items()}
        self.world.settled(names.values())
        return names

    def _good(self, row: Row) -> str:
        return getattr(row.good, self.column)

    def cells(self, own: dict[tuple[int, str], str]) -> Iterator[Cell]:
        for at, row in enumerate(ROWS):
            if not self._good(row):
                continue  # another's job, where none is named
            for caller in self.world.callers:
                expected = self._good(row)
                self.created += row.effect == "created" and expected == "201"
                name = own.get((at, caller.name)) or self._job(row, caller.owner)
                for cell in self._of_good(row, name, caller.name, caller.sent, expected):
                    yield replace(cell, unseen=self._hidden_from(caller))
            sent = bearer(KEYS[row.action][0])
            expected = getattr(row.unfit, self.column)
            name = self._job(row, "key/nightly")
            yield from self._of_good(row, name, f"a key not for {row.action}", sent, expected)
        yield from self._of_nobody()
        yield from self._of_anybody()

    def _hidden_from(self, caller: Caller) -> tuple[str, ...]:
        if self.decision != "own":
            return ()
        return tuple(name for (who, _), name in self.world.jobs.items() if who != caller.owner)

    def _job(self, row: Row, owner: str) -> str:
        who = "corp/ben" if self.decision == "others" else owner
        if row.job == "absent":
            return absent_of(self.world.jobs[who, "ended"])
        return self.world.jobs[who, row.job]

    def _of_good(self, row: Row, name: str, who: str, sent: Sent, expected: str) -> Iterator[Cell]:
        target = target_of(row, name)
        twins = None
        if expected == HIDDEN and name in target and row.job != "absent":
            twins = (name, absent_of(name))
        elif expected == UNSEEN and not row.path and not row.query:
            twins = ("quick", "quack")
        cell = Cell(who, row.method, target, headers_of(row, sent), expected, twins=twins)
        yield from with_head(cell)

    def _of_nobody(self) -> Iterator[Cell]:
        """With credentials that are not good: the same on each row."""
        forms = bad_credentials()
        turn = DECISIONS.index(self.decision)
        for at, row in enumerate(ROWS):
            name = self._job(row, "corp/lea")
            for bad in BAD_CREDENTIALS:
                sent = forms[bad.name][(at + turn) % len(forms[bad.name])]
                target, headers = target_of(row, name, sent.query), headers_of(row, sent)
                cell = Cell(bad.name, row.method, target, headers, bad.answer, bad.challenge)
                yield from with_head(cell)

    def _of_anybody(self) -> Iterator[Cell]:
        """What is answered whoever asks: probes, methods and paths that there are not."""
        everybody = [(caller.name, caller.sent) for caller in self.world.callers]
        everybody += [(bad, forms[0]) for bad, forms in bad_credentials().items()]
        name = self.world.jobs["corp/lea", "running"]
        for route, methods in offered().items():
            target, allow = filled(route, name), ", ".join(sorted(methods))
            for who, sent in everybody:
                if route in PROBES:
                    yield from with_head(Cell(who, "GET", target, sent.headers, "200"))
                for method in set(OTHER_METHODS) - methods:
                    yield Cell(who, method, target, sent.headers, WRONG_METHOD, allow=allow)
        turns = itertools.cycle(everybody)
        for path in NOWHERE:
            for method in (*OTHER_METHODS, "HEAD"):
                who, sent = next(turns)
                yield Cell(who, method, filled(path, name), sent.headers, ELSEWHERE)


def with_head(cell: Cell) -> Iterator[Cell]:
    yield cell
    if cell.method == "GET":
        yield replace(cell, method="HEAD")


def offered() -> dict[str, set[str]]:
    """The methods of each path that the table names."""
    found: dict[str, set[str]] = {probe: {"GET", "HEAD"} for probe in PROBES}
    for row in ROWS:
        methods = {"GET", "HEAD"} if row.method == "GET" else {row.method}
        found.setdefault(row.route, set()).update(methods)
    return found


# What is held


@pytest.mark.anyio
async def test_the_table_names_every_route_and_method_and_no_other(running: Lab):
    served: dict[str, set[str]] = {}
    for route in running.app.routes:
        assert isinstance(route, APIRoute), f"{route} is of another kind, which no row is about"
        path = route.path.replace(":path}", "}")
        served.setdefault(path, set()).update(route.methods)
    assert served == offered()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("decision", DECISIONS)
def test_every_route_answers_as_the_table_says_and_nothing_else_changes(
    world: World, decision: str
):
    world.well()
    walk = Walk(world, decision)
    own = walk.prepare()
    jobs = set(states(world.data))
    before = kept(world.data, walk.made)
    with world.point.behaving(decision):
        asking = Asking(world.service.url, LANES_OF_SLOW if decision == "slow" else LANES)
        faults = asking.faults(list(walk.cells(own)))
    assert not faults, f"{len(faults)} cells:\n" + "\n".join(faults[:40])

    after = states(world.data)
    new = after.keys() - jobs
    assert len(new) == walk.created
    assert kept(world.data, {*walk.made, *new}) == before
    for name, effect in walk.made.items():
        assert after.get(name, "removed").startswith(
            {"stopped": "stop", "removed": ("removed", "deleting")}[effect]
        ), (name, effect)
