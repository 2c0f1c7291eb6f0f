"""A reflector of a real API server: nothing is missed, nothing comes twice."""

import asyncio

import msgspec
import pytest

from model_training.executors.kubernetes import reflector
from model_training.executors.kubernetes.labels import SPEC_ANNOTATION
from model_training.executors.kubernetes.objects import JobRow, decode_job
from tests.cluster.reflector.lab import Namespace, following, settled
from tests.cluster.tcp_proxy import TcpProxy
from tests.waiting import until

pytestmark = pytest.mark.anyio


def short_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reflector, "WATCH_S", (1, 1))


async def test_the_first_list_comes_in_pages(
    namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reflector, "PAGE", 7)
    names = {f"job-{number:02}" for number in range(20)}
    namespace.create(*names)
    async with following(namespace.plane, namespace.path) as followed:
        await asyncio.wait_for(followed.reflector.synced.wait(), 10)
        assert followed.names == names
        assert sorted(followed.came()) == sorted(names)
        assert followed.api.counts["list", "jobs"] == 3
        await settled(followed, names)


async def test_additions_changes_and_deletions_are_told(namespace: Namespace) -> None:
    namespace.create("a", "b")
    async with following(namespace.plane, namespace.path) as followed:
        await settled(followed, {"a", "b"})
        followed.told.clear()
        namespace.create("c")
        namespace.annotate("b", "1")
        await followed.in_step(namespace)
        before, after = followed.told[-1]
        assert before is not None
        assert after is followed.reflector.rows[namespace.name, "b"]
        assert int(before.resource_version) < int(after.resource_version)
        namespace.delete("a")
        await followed.in_step(namespace)
        assert followed.came() == ["c"]
        assert followed.went() == ["a"]
        assert followed.reflector.lists == 1


async def test_a_deletion_tells_the_last_state(namespace: Namespace) -> None:
    namespace.create("a")
    async with following(namespace.plane, namespace.path) as followed:
        await settled(followed, {"a"})
        known = followed.versions["a"]
        namespace.delete("a")
        await until(lambda: followed.went() == ["a"])
        last, _ = followed.told[-1]
        assert last is not None
        assert int(last.resource_version) > int(known)  # of the deletion itself


async def test_only_line_feeds_end_lines(namespace: Namespace) -> None:
    text = "one\x85two\u2028three\x0bfour\r"
    async with following(namespace.plane, namespace.path) as followed:
        await settled(followed)
        namespace.create("a", annotations={SPEC_ANNOTATION: text})
        await followed.in_step(namespace)
        assert followed.reflector.rows[namespace.name, "a"].spec == text
        assert followed.reflector.poisoned == 0
        assert followed.reflector.watches == 1


async def test_an_object_that_cannot_be_decoded_is_left_as_it_was(
    namespace: Namespace, caplog: pytest.LogCaptureFixture
) -> None:
    def decode(raw: msgspec.Raw) -> JobRow:
        if b'"note":"poison"' in bytes(raw):
            raise RecursionError("too deep")
        return decode_job(raw)

    namespace.create("sick", "new")
    namespace.annotate("new", "poison")
    async with following(namespace.plane, namespace.path, decode=decode) as followed:
        await settled(followed, {"sick"})  # what was never readable is not there
        known = followed.versions["sick"]
        namespace.annotate("sick", "poison")
        namespace.create("well")
        await until(lambda: followed.names == {"sick", "well"})
        assert followed.versions["sick"] == known
        namespace.annotate("new", "fine")
        await until(lambda: followed.names == {"sick", "well", "new"})
        namespace.delete("sick")  # which is poison, too
        await until(lambda: followed.names == {"well", "new"})
        assert followed.went() == ["sick"]
        assert followed.reflector.poisoned == 3
        named = [record for record in caplog.records if "cannot be read" in record.message]
        assert len(named) == 2  # once each
        assert followed.reflector.watches == 1


async def test_a_watch_that_ends_goes_on_where_it_was(
    namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    short_watches(monkeypatch)
    async with following(namespace.plane, namespace.path) as followed:
        await settled(followed)
        for number in range(4):
            namespace.create(f"job-{number}")
            watches = followed.reflector.watches
            await until(lambda: followed.reflector.watches > watches)  # noqa: B023
        await followed.in_step(namespace)
        assert len(followed.told) == 4  # none twice
        assert followed.reflector.events == 4  # nor sent twice
        assert followed.reflector.lists == 1


async def test_a_lost_connection_is_bridged(namespace: Namespace, proxy: TcpProxy) -> None:
    namespace.create("a")
    async with following(namespace.plane, namespace.path, server=proxy.url) as followed:
        await settled(followed, {"a"})
        followed.gate.clear()
        proxy.reset()
        await until(lambda: followed.pausing)
        assert followed.is_stale
        namespace.create("b")
        namespace.delete("a")
        followed.gate.set()
        await followed.in_step(namespace)
        assert followed.came() == ["a", "b"]
        assert followed.went() == ["a"]
        assert followed.reflector.lists == 2


async def test_a_version_that_is_forgotten_leads_to_a_new_list(
    namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    short_watches(monkeypatch)
    namespace.create("gone", "changed", "same", "namesake")
    async with following(namespace.plane, namespace.path) as followed:
        await settled(followed, {"gone", "changed", "same", "namesake"})
        old_uid = followed.reflector.rows[namespace.name, "namesake"].uid
        followed.told.clear()
        followed.gate.clear()
        await until(lambda: followed.opening or followed.pausing)  # this watch ended in order
        namespace.delete("gone", "namesake")
        namespace.create("new", "namesake")
        namespace.annotate("changed", "1")
        namespace.plane.compact()
        namespace.plane.restart("kube-apiserver")
        assert followed.names == {"gone", "changed", "same", "namesake"}  # what was, meanwhile
        opened = followed.reflector.watches
        followed.gate.set()
        await followed.in_step(namespace)
        assert followed.went() == ["namesake", "gone"]
        assert sorted(followed.came()) == ["namesake", "new"]
        assert len(followed.told) == 5  # nothing of the one that is the same
        assert old_uid != followed.reflector.rows[namespace.name, "namesake"].uid
        # The watch was opened, and said in its stream that the version is forgotten.
        assert followed.reflector.watches >= opened + 2
        assert followed.reflector.lists == 2
