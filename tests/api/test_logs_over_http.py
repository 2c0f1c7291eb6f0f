"""Reading and following logs over HTTP."""

import base64
import json
import re
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.api.lab import Lab, lab
from tests.api.raw import head, raw
from tests.waiting import until

pytestmark = pytest.mark.anyio

EVENTS = {"Accept": "text/event-stream"}
# Prints two lines, then one more for each file that appears in its output folder.
STEPS = (
    "import os, time, pathlib; p = pathlib.Path(os.environ['MODEL_TRAINING_OUTPUT'])\n"
    "print('one'); print('two')\n"
    "for i in range(9):\n"
    "    while not (p / str(i)).exists(): time.sleep(0.01)\n"
    "    text = (p / str(i)).read_text()\n"
    "    if text == 'end': break\n"
    "    print(text)\n"
)


def tell(shared: Lab, name: str, step: int, text: str) -> None:
    """Let a job of STEPS go on."""
    folder = shared.data.job(name).output
    fresh = folder / f".{step}"
    fresh.write_text(text)
    fresh.rename(folder / str(step))


@dataclass
class Event:
    name: str
    id: str | None
    data: dict[str, object]


async def events(shared: Lab, name: str, query: str = "", **headers: str) -> AsyncGenerator[Event]:
    url = f"/training-jobs/{name}{query}"
    async with shared.client.stream("GET", url, headers={**EVENTS, **headers}) as answer:
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"] == "text/event-stream"
        fields: dict[str, str] = {}
        async for line in answer.aiter_lines():
            if line.startswith(":"):
                continue
            if line:
                field, _, value = line.partition(": ")
                fields[field] = value
            else:
                yield Event(fields["event"], fields.get("id"), json.loads(fields["data"]))
                fields = {}


async def printed(shared: Lab, name: str, content: bytes) -> None:
    async def shown() -> bool:
        return (await shared.client.get(f"/training-jobs/{name}")).content == content

    await until(shown)


async def finished(shared: Lab, code: str) -> str:
    name = await shared.create(code)
    await until(lambda: shared.ended(name))
    return name


async def test_log_is_the_bytes_as_printed_with_state_and_position(shared: Lab) -> None:
    name = await finished(shared, "import os; os.write(1, bytes(range(256)))")
    answer = await shared.client.get(f"/training-jobs/{name}")
    assert answer.content == bytes(range(256))
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["content-length"] == "256"
    assert answer.headers["model-training-state"] == "succeeded"
    assert answer.headers["model-training-exit-code"] == "0"
    assert answer.headers["model-training-position"] == "1.256"
    assert answer.headers["accept-ranges"] == "bytes"
    assert "model-training-gaps" not in answer.headers


async def test_job_that_has_not_started_has_an_empty_log(tmp_path: Path) -> None:
    async with lab(tmp_path, slots=1) as one:
        await one.create("import time; time.sleep(60)")
        waiting = await one.create("print('late')")
        answer = await one.client.get(f"/training-jobs/{waiting}")
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["model-training-state"] == "pending"
        assert "model-training-exit-code" not in answer.headers


async def test_tail_since_and_timestamps_choose_lines(shared: Lab) -> None:
    name = await finished(shared, "for i in range(10): print('line', i)")
    get = shared.client.get
    assert (await get(f"/training-jobs/{name}?tail=2")).text == "line 8\nline 9\n"
    assert (await get(f"/training-jobs/{name}?tail=0")).text == ""
    assert (await get(f"/training-jobs/{name}?since=1h")).text.count("\n") == 10
    assert (await get(f"/training-jobs/{name}?since=2100-01-01T00:00:00Z")).text == ""
    stamped = (await get(f"/training-jobs/{name}?timestamps=true&tail=2")).text
    pattern = r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z line \d\n){2}"
    assert re.fullmatch(pattern, stamped)


async def test_attempts_that_were_not_are_refused(shared: Lab) -> None:
    name = await finished(shared, "print(1)")
    assert (await shared.client.get(f"/training-jobs/{name}?attempt=1")).status_code == 200
    answer = await shared.client.get(f"/training-jobs/{name}?attempt=2")
    assert answer.status_code == 422


@pytest.mark.parametrize(
    ("wanted", "status", "content", "place"),
    [
        ("bytes=0-", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=3-5", 206, b"345", "bytes 3-5/10"),
        ("bytes=-4", 206, b"6789", "bytes 6-9/10"),
        ("bytes=8-100", 206, b"89", "bytes 8-9/10"),
        ("bytes=-100", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=10-", 416, None, "bytes */10"),
        ("bytes=-0", 416, None, "bytes */10"),
        ("bytes=0-1,3-4", 200, b"0123456789", None),
        ("lines=0-1", 200, b"0123456789", None),
        ("bytes=5-3", 200, b"0123456789", None),
        ("bytes=x", 200, b"0123456789", None),
    ],
)
async def test_ranges(
    shared: Lab, wanted: str, status: int, content: bytes | None, place: str | None
) -> None:
    name = await finished(shared, "import os; os.write(1, b'0123456789')")
    answer = await shared.client.get(f"/training-jobs/{name}", headers={"Range": wanted})
    assert answer.status_code == status
    assert answer.headers.get("content-range") == place
    if content is not None:
        assert answer.content == content
        assert int(answer.headers["content-length"]) == len(content)
    else:
        assert answer.json()["type"] == "/problems/range-not-satisfiable"


@pytest.mark.parametrize("option", ["tail=1", "since=1h", "timestamps=true", "follow=true"])
async def test_range_with_another_choice_is_refused(shared: Lab, option: str) -> None:
    name = await finished(shared, "print(1)")
    answer = await shared.client.get(
        f"/training-jobs/{name}?{option}", headers={"Range": "bytes=0-"}
    )
    assert answer.status_code == 422
    assert [fault["path"] for fault in answer.json()["errors"]] == ["header.Range"]


async def test_missing_bytes_are_named_and_a_range_stops_before_them(tmp_path: Path) -> None:
    async with lab(tmp_path) as one:
        name = await finished(one, "print(1)")
        write_log_with_gap(one, name)
        whole = await one.client.get(f"/training-jobs/{name}")
        assert whole.content == b"aaaaacc"
        assert whole.headers["model-training-gaps"] == "5-8"
        assert whole.headers["content-length"] == "7"
        part = await one.client.get(f"/training-jobs/{name}", headers={"Range": "bytes=3-9"})
        assert (part.status_code, part.content) == (206, b"aa")
        assert part.headers["content-range"] == "bytes 3-4/10"
        assert part.headers["model-training-position"] == "1.5"
        inside = await one.client.get(f"/training-jobs/{name}", headers={"Range": "bytes=6-"})
        assert inside.status_code == 416
        assert inside.headers["model-training-gaps"] == "5-8"
        after = await one.client.get(f"/training-jobs/{name}", headers={"Range": "bytes=8-"})
        assert after.content == b"cc"
        seen = [event async for event in events(one, name)]
        assert [event.name for event in seen] == ["state", "log", "gap", "log", "end"]
        assert seen[2].id == "1.8"
        assert (seen[2].data["from"], seen[2].data["to"]) == (5, 8)


def write_log_with_gap(one: Lab, name: str) -> None:
    """A log whose bytes 5 to 8 are gone, as a dropped segment leaves it."""
    import shutil

    from model_training.logs.segments import SegmentWriter

    folder = one.data.job(name).log(1)
    shutil.rmtree(folder)
    writer = SegmentWriter(folder, segment_size=5)
    for text, moment in ((b"aaaaa", 1), (b"bbb", 2)):
        writer.write(text, moment)
    writer.close()
    for file in sorted(folder.glob("*.log"))[1:]:
        file.unlink()
    (folder / f"{8:020}.log").write_bytes(b"cc")


async def test_follower_sees_states_bytes_and_the_end(shared: Lab) -> None:
    name = await shared.create(STEPS)
    seen: list[Event] = []
    async with aclosing(events(shared, name)) as following:
        async for event in following:
            seen.append(event)
            if event.name == "log" and str(event.data["text"]).endswith("two\n"):
                tell(shared, name, 0, "grüße")
            if event.name == "log" and str(event.data["text"]).endswith("grüße\n"):
                tell(shared, name, 1, "end")
    logs = [event for event in seen if event.name == "log"]
    text = "".join(str(event.data["text"]) for event in logs)
    assert text == "one\ntwo\ngrüße\n"
    assert logs[-1].id == f"1.{len(text.encode())}"
    assert seen[0].name == "state"
    assert seen[-1].name == "end"
    assert seen[-1].data == {
        "state": "succeeded", "reason": None, "message": seen[-1].data["message"], "exit_code": 0,
    }  # fmt: skip
    states = [event.data["state"] for event in seen if event.name == "state"]
    assert "running" in states


async def test_follower_resumes_after_any_event_without_loss_or_repeat(shared: Lab) -> None:
    name = await finished(shared, "for i in range(50): print('line', i)")
    whole = (await shared.client.get(f"/training-jobs/{name}")).content
    for offset in (0, 1, 7, 200, len(whole)):
        headers = {"Last-Event-ID": f"1.{offset}"}
        seen = [event async for event in events(shared, name, "?tail=1", **headers)]
        text = "".join(str(event.data["text"]) for event in seen if event.name == "log")
        assert text.encode() == whole[offset:]
        assert seen[-1].name == "end"


async def test_position_beyond_the_end_or_made_up_is_refused(shared: Lab) -> None:
    name = await finished(shared, "print(1)")
    for position, status in (("1.3", 416), ("2.0", 422), ("x", 422), ("-1.5", 422), ("", 422)):
        answer = await shared.client.get(
            f"/training-jobs/{name}", headers={**EVENTS, "Last-Event-ID": position}
        )
        assert answer.status_code == status, position


async def test_position_of_another_generation_is_told_and_the_log_begins_anew(
    shared: Lab,
) -> None:
    name = await finished(shared, "print(1)")
    headers = {"Last-Event-ID": "1.2.7"}
    seen = [event async for event in events(shared, name, **headers)]
    assert [event.name for event in seen] == ["state", "reset", "log", "end"]
    assert seen[1].id == "1.0"
    assert seen[2].data == {"text": "1\n"}


async def test_bytes_that_are_no_text_come_in_base64(shared: Lab) -> None:
    name = await finished(shared, "import os; os.write(1, b'\\xff\\xfe\\r\\n\\nevent: end')")
    seen = [event async for event in events(shared, name)]
    assert [event.name for event in seen] == ["state", "log", "end"]
    assert base64.b64decode(str(seen[1].data["base64"])) == b"\xff\xfe\r\n\nevent: end"


async def test_text_cannot_forge_an_event(shared: Lab) -> None:
    forged = "x\n\nevent: end\ndata: {}\n\n\r\r\u2028\u0085y"
    name = await finished(shared, f"print({forged!r}, end='')")
    seen = [event async for event in events(shared, name)]
    assert [event.name for event in seen] == ["state", "log", "end"]
    assert seen[1].data["text"] == forged


async def test_followed_text_ends_with_the_job(shared: Lab) -> None:
    name = await shared.create(STEPS)
    await printed(shared, name, b"one\ntwo\n")
    async with shared.client.stream("GET", f"/training-jobs/{name}?follow=true") as answer:
        parts = answer.aiter_raw()
        assert await anext(parts) == b"one\ntwo\n"
        tell(shared, name, 0, "three")
        assert await anext(parts) == b"three\n"
        tell(shared, name, 1, "end")
        assert [part async for part in parts] == []


async def test_follower_of_a_deleted_job_is_told(shared: Lab) -> None:
    name = await shared.create(STEPS)
    await printed(shared, name, b"one\ntwo\n")
    seen: list[Event] = []
    async with aclosing(events(shared, name)) as following:
        async for event in following:
            seen.append(event)
            if event.name == "log":
                await shared.client.delete(f"/training-jobs/{name}")
    assert seen[-1].name == "end"
    assert seen[-1].data["state"] in {"deleted", "stopped", "deleting"}


async def test_follower_waits_for_a_job_that_waits(tmp_path: Path) -> None:
    async with lab(tmp_path, slots=1) as one:
        first = await one.create(STEPS)
        await printed(one, first, b"one\ntwo\n")
        second = await one.create("print('at last')")
        seen: list[Event] = []
        async with aclosing(events(one, second)) as following:
            async for event in following:
                if not seen:
                    tell(one, first, 0, "end")
                seen.append(event)
        assert seen[0].data["state"] == "pending"
        assert seen[0].data["reason"] == "WaitingForSlot"
        assert "".join(str(e.data["text"]) for e in seen if e.name == "log") == "at last\n"


async def test_shutdown_tells_followers_and_cuts_text_within_a_second(tmp_path: Path) -> None:
    async with lab(tmp_path) as one:
        name = await one.create(STEPS)
        await printed(one, name, b"one\ntwo\n")
        async with raw(one) as text, raw(one) as stream:
            await text.send(head(one, f"GET /training-jobs/{name}?follow=true"))
            await stream.send(head(one, f"GET /training-jobs/{name}", "Accept: text/event-stream"))
            await text.until(b"two\n")
            await stream.until(b'two\\n"}\n\n')
            began = time.monotonic()
            one.stopping.set()
            assert b'event: bye\ndata: {"retry_s":1}\n\n' in await stream.until(b"0\r\n\r\n")
            assert not (await text.rest()).endswith(b"0\r\n\r\n")
            assert time.monotonic() - began < 1
        assert await one.state(name) == "running"


async def test_followers_beyond_the_limit_are_asked_to_come_later(tmp_path: Path) -> None:
    async with lab(tmp_path, max_followers=2) as one:
        name = await one.create(STEPS)
        async with raw(one) as first, raw(one) as second:
            for line in (first, second):
                await line.send(head(one, f"GET /training-jobs/{name}?follow=true"))
                await line.until(b"\r\n\r\n")
            answer = await one.client.get(f"/training-jobs/{name}?follow=true")
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) > 0
            assert (await one.client.get(f"/training-jobs/{name}")).status_code == 200

        async def free() -> bool:
            return "model_training_log_followers 0.0" in (await one.client.get("/metrics")).text

        await until(free)


async def test_slow_follower_does_not_slow_another(shared: Lab) -> None:
    code = STEPS + "import sys; sys.stdout.write('x' * 20_000_000)\n"
    name = await shared.create(code)
    await printed(shared, name, b"one\ntwo\n")
    async with raw(shared, limit=1024) as deaf:
        await deaf.send(head(shared, f"GET /training-jobs/{name}?follow=true"))
        await deaf.until(b"two\n")
        tell(shared, name, 0, "end")
        size = 0
        began = time.monotonic()
        async with shared.client.stream("GET", f"/training-jobs/{name}?follow=true") as answer:
            async for part in answer.aiter_raw():
                size += len(part)
        assert size == 20_000_008
        assert time.monotonic() - began < 20


async def test_follower_who_goes_away_leaves_nothing(shared: Lab) -> None:
    name = await shared.create(STEPS)
    for _ in range(3):
        async with raw(shared) as line:
            await line.send(head(shared, f"GET /training-jobs/{name}", "Accept: text/event-stream"))
            await line.until(b"event: state")

    async def none() -> bool:
        return "model_training_log_followers 0.0" in (await shared.client.get("/metrics")).text

    await until(none, within=3)


async def test_large_log_comes_whole(shared: Lab) -> None:
    name = await finished(shared, "import os\nfor i in range(300): os.write(1, b'y' * 100_000)")
    answer = await shared.client.get(f"/training-jobs/{name}")
    assert answer.headers["content-length"] == "30000000"
    assert len(answer.content) == 30_000_000
