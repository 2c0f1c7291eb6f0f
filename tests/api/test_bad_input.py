"""Bad input is answered clearly, and nothing is created by it."""

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import pytest

from model_training.access.actions import Action
from model_training.access.decisions import Decision, Resource
from model_training.access.principals import Principal
from tests.api.lab import Lab, lab

pytestmark = pytest.mark.anyio

JSON = {"Content-Type": "application/json"}
BODIES = {
    "array": (b"[1]", 422, "body"),
    "text": (b'"a"', 422, "body"),
    "null": (b"null", 422, "body"),
    "empty name": (b'{"": 1}', 422, "body."),
    "invalid name": (b'{"a-b": 1}', 422, "body.a-b"),
    "reserved name": (b'{"LD_PRELOAD": "x"}', 422, "body.LD_PRELOAD"),
    "reserved path": (b'{"PATH": "x"}', 422, "body.PATH"),
    "reserved proxy": (b'{"http_proxy": "x"}', 422, "body.http_proxy"),
    "reserved own": (b'{"MODEL_TRAINING_X": "x"}', 422, "body.MODEL_TRAINING_X"),
    "NUL": (b'{"A": "a\\u0000b"}', 422, "body.A"),
    "too many bytes": (b'{"A": "' + b"x" * 100_001 + b'"}', 422, "body"),
    "duplicate keys": (b'{"A": 1, "A": 2}', 400, None),
    "NaN": (b'{"A": NaN}', 400, None),
    "Infinity": (b'{"A": -Infinity}', 400, None),
    "beyond a float": (b'{"A": 1e999}', 400, None),
    "lone surrogate": (b'{"A": "\\ud800"}', 400, None),
    "depth": (b'{"A": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", 400, None),
    "cut": (b'{"A": [1, 2', 400, None),
    "no UTF-8": (b'{"A": "\xff"}', 400, None),
    "byte order mark": (b'\xef\xbb\xbf{"A": 1}', 400, None),
    "huge integer": (b'{"A": ' + b"9" * 5000 + b"}", 400, None),
    "no JSON": (b"epochs=1", 400, None),
    "trailing words": (b'{"A": 1} x', 400, None),
}


class Breaking:
    """A decision point with a fault."""

    async def decide(
        self, principal: Principal, action: Action, resources: Sequence[Resource]
    ) -> Sequence[Decision]:
        raise RuntimeError("secret words")


async def assert_nothing_created(shared: Lab) -> None:
    assert (await shared.client.get("/training-jobs")).json() == []
    jobs = shared.data.jobs
    assert list(jobs.rglob("spec.json")) == []


@pytest.mark.parametrize("kind", BODIES)
async def test_bodies(shared: Lab, kind: str) -> None:
    body, status, path = BODIES[kind]
    answer = await shared.client.post("/training-jobs?pipeline=print", content=body, headers=JSON)
    problem = answer.json()
    assert answer.status_code == status, problem
    assert len(answer.content) < 2000, "a message repeats no long input"
    if path is not None:
        assert [fault["path"] for fault in problem["errors"]] == [path]
    await assert_nothing_created(shared)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/jsonp"},
        {**JSON, "Content-Encoding": "gzip"},
    ],
)
async def test_other_media_types(shared: Lab, headers: dict[str, str]) -> None:
    answer = await shared.client.post(
        "/training-jobs?pipeline=print", content=b'{"A": 1}', headers=headers
    )
    assert answer.status_code == 415
    assert answer.json()["type"] == "/problems/unsupported-media-type"
    await assert_nothing_created(shared)


async def test_no_body_needs_no_media_type_and_charset_is_passed_over(shared: Lab) -> None:
    for content, headers in (
        (b"", {}),
        (b"{}", {"Content-Type": "application/json; charset=utf-8"}),
        (b"{}", {"Content-Type": "Application/JSON"}),
    ):
        answer = await shared.client.post(
            "/training-jobs?pipeline=print&dry_run=true", content=content, headers=headers
        )
        assert answer.status_code == 200


@pytest.mark.parametrize(
    "name",
    ["", "../x", "a" * 32, "a" * 300, "a\0b", "api", "-a", "a-", "a_b", "a.b", "é", "a b", "a/b"],
)
async def test_pipeline_names(shared: Lab, name: str) -> None:
    query = f"/training-jobs?pipeline={quote(name, safe='')}"
    for answer in (await shared.client.post(query), await shared.client.get(query)):
        assert answer.status_code == 422
        assert [fault["path"] for fault in answer.json()["errors"]] == ["query.pipeline"]
    if len(name) == 32:
        assert "31" in answer.text
    await assert_nothing_created(shared)


async def test_missing_pipeline_is_asked_for(shared: Lab) -> None:
    answer = await shared.client.post("/training-jobs")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["path"] == "query.pipeline"


@pytest.mark.parametrize(
    "query",
    [
        "pipeline=print&foo=1", "pipeline=print&timeout=-1", "pipeline=print&timeout=1e3",
        "pipeline=print&timeout=%D9%A1", "pipeline=print&timeout=1&timeout=2",
        "pipeline=print&grace=3601", "pipeline=print&cpu=0", "pipeline=print&memory=1",
        "pipeline=print&gpu=1.5", "pipeline=print&dry_run=yes", "pipeline=print&=1",
        "pipeline=print&a=%00",
    ],
)  # fmt: skip
async def test_options_of_a_submission(shared: Lab, query: str) -> None:
    answer = await shared.client.post(f"/training-jobs?{query}")
    assert answer.status_code == 422
    assert len(answer.json()["errors"]) == 1
    await assert_nothing_created(shared)


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("/training-jobs?limit=0", "query.limit"),
        ("/training-jobs?limit=1001", "query.limit"),
        ("/training-jobs?limit=x", "query.limit"),
        ("/training-jobs?state=nothing", "query.state"),
        ("/training-jobs?owner=", "query.owner"),
        ("/training-jobs?created_after=yesterday", "query.created_after"),
        ("/training-jobs?created_after=2026-01-01T00:00:00", "query.created_after"),
        ("/training-jobs?created_before=2026-13-01T00:00:00Z", "query.created_before"),
        ("/training-jobs?created_before=0001-01-01T00:00:00%2B14:00", "query.created_before"),
        ("/training-jobs?stat=failed", "query.stat"),
        ("/training-jobs/model-training-x?tail=-1", "query.tail"),
        ("/training-jobs/model-training-x?tail=1000001", "query.tail"),
        ("/training-jobs/model-training-x?since=soon", "query.since"),
        ("/training-jobs/model-training-x?follow=1", "query.follow"),
        ("/training-jobs/model-training-x?attempt=0", "query.attempt"),
        ("/training-jobs/model-training-x/status?x=1", "query.x"),
        ("/training-jobs/model-training-x/outputs?x=1", "query.x"),
        ("/training-jobs/model-training-x/outputs/a?x=1", "query.x"),
        ("/pipelines?x=1", "query.x"),
        ("/pipelines/print?x=1", "query.x"),
        ("/metrics?x=1", "query.x"),
    ],
)
async def test_options_of_other_routes(shared: Lab, path: str, fault: str) -> None:
    answer = await shared.client.get(path)
    assert answer.status_code == 422
    assert [one["path"] for one in answer.json()["errors"]] == [fault]


async def test_query_that_is_no_text_or_endless_is_refused(shared: Lab) -> None:
    for query in ("pipeline=%ff", "&".join(f"a{i}=1" for i in range(101))):
        answer = await shared.client.get(f"/training-jobs?{query}")
        assert answer.status_code == 400


@pytest.mark.parametrize("key", ["", "é", "a\tb", "x" * 256])
async def test_idempotency_keys(shared: Lab, key: str) -> None:
    answer = await shared.client.post(
        "/training-jobs?pipeline=print", headers={"Idempotency-Key": key.encode()}
    )
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["path"] == "header.Idempotency-Key"
    await assert_nothing_created(shared)


async def test_fault_of_the_service_tells_its_id_and_no_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with lab(tmp_path, decider=Breaking()) as one:
        answer = await one.client.get("/pipelines/print")
    problem = answer.json()
    assert answer.status_code == 500
    assert set(problem) == {"type", "title", "status", "detail", "request_id"}
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert "secret" not in answer.text
    [record] = [record for record in caplog.records if problem["request_id"] in record.message]
    assert record.exc_info is not None
