"""A follower by server-sent events that resumes with Last-Event-ID, life after life."""

import base64
import http.client
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from service import Service

FOLLOW_S = 90.0  # seconds until a follower without an end is called stuck


@dataclass
class Followed:
    """What a follower got."""

    data: bytes = b""
    end: dict | None = None
    gaps: list[dict] = field(default_factory=list)
    resumes: int = 0
    said_bye: int = 0
    is_gone: bool = False
    """a resumed follower found no job"""
    faults: list[str] = field(default_factory=list)


@dataclass
class Event:
    """One server-sent event."""

    kind: str = ""
    id: str = ""
    data: str = ""


def events(answer: http.client.HTTPResponse) -> Iterator[Event]:
    """Whole events only: one that a cut left half is none."""
    event = Event()
    while line := answer.readline():
        if not line.endswith(b"\n"):
            return
        text = line.decode().rstrip("\n")
        if not text and event.kind:
            yield event
            event = Event()
        key, _, value = text.partition(": ")
        if key in {"event", "id", "data"}:
            setattr(event, "kind" if key == "event" else key, value)


def follow(service: Service, name: str) -> Followed:
    """Follow until the end, or until the job is gone."""
    got = Followed()
    position = ""
    deadline = time.monotonic() + FOLLOW_S
    while got.end is None and not got.is_gone:
        if time.monotonic() > deadline:
            got.faults.append(f"no end within {FOLLOW_S:g} s")
            return got
        service.is_up.wait(5)
        try:
            position = _one_life(service, name, position, got)
        except (OSError, http.client.HTTPException):
            time.sleep(0.02)
        got.resumes += got.end is None
    return got


def _one_life(service: Service, name: str, position: str, got: Followed) -> str:
    connection = service.connection(timeout=20)
    headers = {**service.headers, "Accept": "text/event-stream"}
    if position:
        headers["Last-Event-ID"] = position
    try:
        connection.request("GET", f"/training-jobs/{name}", headers=headers)
        answer = connection.getresponse()
        if answer.status == 404:
            got.is_gone = True
        if answer.status != 200:
            time.sleep(0.05)
            return position
        try:
            for event in events(answer):
                position = _take(event, position, got)
                if got.end is not None:
                    break
        except (OSError, http.client.HTTPException):
            pass  # cut: what came before it counts
        return position
    finally:
        connection.close()


def _take(event: Event, position: str, got: Followed) -> str:
    content = json.loads(event.data)
    if event.kind == "log":
        data = (
            content["text"].encode() if "text" in content else base64.b64decode(content["base64"])
        )
        before, after = int(position.partition(".")[2] or 0), int(event.id.partition(".")[2])
        if after - before != len(data):
            got.faults.append(f"{len(data)} bytes from {before} to {after}")
        got.data += data
    elif event.kind == "gap":
        got.gaps.append(content)
        got.data += b"\0" * (content["to"] - content["from"])
    elif event.kind == "reset":
        got.faults.append(f"reset: {content}")
    elif event.kind == "end":
        got.end = content
    elif event.kind == "bye":
        got.said_bye += 1
    return event.id or position
