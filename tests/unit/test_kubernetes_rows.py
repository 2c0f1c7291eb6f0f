"""Lines out of chunks, and the newer of two words about an object."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_training.executors.kubernetes.objects import JobRow
from model_training.executors.kubernetes.row_store import Listener, RowStore
from model_training.executors.kubernetes.watch_wire import EventLines


def row(name: str, version: int, uid: str = "u") -> JobRow:
    return JobRow(namespace="n", name=name, uid=uid, resource_version=str(version), created="")


class Told:
    """What a store told: name and versions before and after."""

    def __init__(self) -> None:
        self.changes: list[tuple[str, int, int]] = []
        self.store = RowStore(Listener(self.changed))

    def changed(self, before: JobRow | None, after: JobRow | None) -> None:
        some = after or before
        assert some is not None
        versions = (int(row.resource_version) if row else 0 for row in (before, after))
        self.changes.append((some.name, *versions))

    def take(self) -> list[tuple[str, int, int]]:
        taken, self.changes = self.changes, []
        return taken

    def listed(self, version: int, *rows: JobRow) -> list[tuple[str, int, int]]:
        self.store.begin_list()
        self.store.end_list({("n", r.name): r for r in rows}, version)
        return self.take()


@pytest.fixture
def told() -> Told:
    return Told()


@given(st.lists(st.binary(max_size=30).map(lambda b: b.replace(b"a", b"\n"))))
def test_lines_do_not_depend_on_where_chunks_end(chunks: list[bytes]) -> None:
    lines = EventLines()
    cut = [line for chunk in chunks for line in lines.feed(chunk)]
    whole = b"".join(chunks).split(b"\n")[:-1]
    assert cut == [line for line in whole if line]


def test_of_a_line_over_the_limit_only_the_beginning_is_kept() -> None:
    lines = EventLines(limit=500)
    assert lines.feed(b"x" * 300) == []
    assert lines.feed(b"x" * 300) == []
    assert lines.feed(b"x" * 300) == []
    assert lines.feed(b"x\n1\n2") == [b"x" * 100, b"1"]
    assert lines.feed(b"3\n") == [b"23"]


def test_a_line_of_many_chunks_is_cheap() -> None:
    lines = EventLines()
    for _ in range(100_000):
        assert lines.feed(b"x" * 100) == []
    assert lines.feed(b"\n") == [b"x" * 10_000_000]


def test_a_list_tells_only_what_is_different(told: Told) -> None:
    assert told.listed(5, row("a", 1), row("b", 2)) == [("a", 0, 1), ("b", 0, 2)]
    assert told.listed(9, row("b", 2), row("c", 7)) == [("c", 0, 7), ("a", 1, 0)]
    assert set(told.store.rows) == {("n", "b"), ("n", "c")}


def test_a_namesake_is_gone_first_then_there(told: Told) -> None:
    told.listed(5, row("a", 1, "one"))
    assert told.listed(9, row("a", 7, "two")) == [("a", 1, 0), ("a", 0, 7)]
    told.store.set(row("a", 10, "three"))
    assert told.take() == [("a", 7, 0), ("a", 0, 10)]


def test_an_older_list_is_believed_where_the_database_went_back(told: Told) -> None:
    told.listed(900, row("a", 800), row("b", 900))
    assert told.listed(100, row("a", 50)) == [("a", 800, 50), ("b", 900, 0)]


def test_an_older_word_changes_nothing(told: Told) -> None:
    told.listed(9, row("a", 8))
    told.store.set(row("a", 7))
    told.store.set(row("a", 8))
    told.store.remove(("n", "a"), 7)
    assert told.take() == []
    told.store.remove(("n", "a"), 10, row("a", 10))
    assert told.take() == [("a", 10, 0)]


def test_what_a_call_returned_is_there_at_once(told: Told) -> None:
    told.listed(9)
    told.store.put(row("a", 10))
    assert told.take() == [("a", 0, 10)]
    told.store.set(row("a", 10))  # the watch says it, too
    assert told.take() == []


def test_what_was_seen_to_end_is_not_put_back(told: Told) -> None:
    told.listed(9)
    told.store.set(row("a", 10))
    told.store.version = 11
    told.store.remove(("n", "a"), 11)
    told.take()
    told.store.put(row("a", 10))  # the answer to our POST comes last
    assert told.take() == []
    assert not told.store.rows


def test_what_is_put_while_a_list_is_made_may_be_newer_than_it(told: Told) -> None:
    told.listed(9, row("old", 1))
    told.store.begin_list()
    told.store.put(row("new", 20))
    told.store.put(row("seen", 12))
    told.store.put(row("ended", 13))
    told.take()
    told.store.end_list({("n", "seen"): row("seen", 14)}, 15)
    assert told.take() == [("seen", 12, 14), ("old", 1, 0), ("ended", 13, 0)]
    assert set(told.store.rows) == {("n", "seen"), ("n", "new")}


def test_what_is_put_by_a_younger_database_survives_its_list(told: Told) -> None:
    told.listed(900, row("a", 800))
    told.store.begin_list()
    told.store.put(row("new", 120))  # less than all that we have seen
    told.store.end_list({("n", "a"): row("a", 50)}, 100)
    assert set(told.store.rows) == {("n", "a"), ("n", "new")}
    assert told.take() == [("a", 800, 50), ("new", 0, 120)]
