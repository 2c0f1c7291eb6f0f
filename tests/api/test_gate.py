"""Host, Origin, request ids, and paths, before any route is reached."""

import json
import logging

import pytest

from tests.api.lab import TOKEN, Lab
from tests.api.raw import head, raw
from tests.waiting import until

pytestmark = pytest.mark.anyio

METHODS = ("GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS")


@pytest.mark.parametrize("method", METHODS)
async def test_foreign_host_is_refused_on_every_method(shared: Lab, method: str) -> None:
    answer = await shared.client.request(
        method, "/training-jobs", headers={"Host": f"evil.example:{shared.port}"}
    )
    assert answer.status_code == 421
    if method != "HEAD":
        assert answer.json()["type"] == "/problems/misdirected-request"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1:1", "file://", "127.0.0.1"]
)
async def test_foreign_origin_is_refused_on_every_method(
    shared: Lab, method: str, origin: str
) -> None:
    answer = await shared.client.request(method, "/training-jobs", headers={"Origin": origin})
    assert answer.status_code == 403


async def test_own_origin_and_loopback_names_are_served(shared: Lab) -> None:
    for host in ("127.0.0.1", "localhost", "LOCALHOST", "[::1]"):
        headers = {"Host": f"{host}:{shared.port}", "Origin": f"http://{host}:{shared.port}"}
        assert (await shared.client.get("/training-jobs", headers=headers)).status_code == 200


async def test_missing_or_doubled_host_is_refused(shared: Lab) -> None:
    for hosts in ("", "Host: localhost\r\nHost: localhost\r\n"):
        async with raw(shared) as line:
            await line.send(
                f"GET /training-jobs HTTP/1.1\r\n{hosts}Authorization: Bearer {TOKEN}\r\n"
                "Connection: close\r\n\r\n".encode()
            )
            assert (await line.rest()).startswith(b"HTTP/1.1 421")


async def test_probes_are_exempt_from_the_host_check(shared: Lab) -> None:
    for path in ("/livez", "/readyz"):
        answer = await shared.client.get(path, headers={"Host": "10.1.2.3"})
        assert (answer.status_code, answer.text) == (200, "ok\n")


async def test_each_answer_has_an_id_and_takes_over_a_given_one(shared: Lab) -> None:
    for path in ("/livez", "/training-jobs", "/nothing"):
        own = await shared.client.get(path)
        given = await shared.client.get(path, headers={"X-Request-ID": "trace-1.a_B"})
        evil = await shared.client.get(path, headers={"X-Request-ID": "a b"})
        assert len(own.headers["x-request-id"]) == 16
        assert given.headers["x-request-id"] == "trace-1.a_B"
        assert evil.headers["x-request-id"] != "a b"
        assert own.headers["x-content-type-options"] == "nosniff"


async def test_job_names_that_are_none_answer_like_an_absent_job(shared: Lab) -> None:
    name = await shared.create()
    absent = await shared.client.get("/training-jobs/model-training-print-none/status")
    problem = absent.json()
    paths = [
        f"{name}%2fstatus", f"{name}%2F..%2F{name}", f"{name}%00", f"{name}%0a", "%2e%2e", "%2e",
        "..", ".", name.upper(), name + "/".join(["%2f"]), "kube-system", "trainer", "%ff",
        "model-training-", "x" * 300, "model-training-" + "x" * 60, "%F0%9F%90%8D", f"{name};x",
    ]  # fmt: skip
    for path in paths:
        for suffix in ("", "/status", "/outputs", "/outputs/x"):
            async with raw(shared) as line:
                await line.send(
                    head(shared, f"GET /training-jobs/{path}{suffix}", "Connection: close")
                )
                answer = await line.rest()
            top, _, body = answer.partition(b"\r\n\r\n")
            assert top.startswith(b"HTTP/1.1 404"), path
            document = json.loads(body)
            assert document["type"] == problem["type"], path
            shown = f"There is no training job named {path[:100]!r}."  # as it was sent
            assert document["detail"] == shown


async def test_trailing_and_double_slashes_are_404(shared: Lab) -> None:
    name = await shared.create()
    for path in ("/training-jobs/", "//training-jobs", f"/training-jobs/{name}/", "/livez/", "/"):
        async with raw(shared) as line:
            await line.send(head(shared, f"GET {path}", "Connection: close"))
            assert (await line.rest()).startswith(b"HTTP/1.1 404"), path


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/training-jobs", "GET, HEAD, POST"),
        ("/training-jobs/model-training-x", "DELETE, GET, HEAD"),
        ("/training-jobs/model-training-x/stop", "POST"),
        ("/livez", "GET, HEAD"),
    ],
)
async def test_other_methods_answer_405_with_all_that_are_allowed(
    shared: Lab, path: str, allowed: str
) -> None:
    for method in ("OPTIONS", "PUT", "PATCH", "TRACE", "MADE-UP"):
        answer = await shared.client.request(method, path)
        if method == "MADE-UP":  # no method of the parser's
            assert answer.status_code == 400
            continue
        assert answer.status_code == 405, method
        assert answer.headers["allow"] == allowed
        assert answer.json()["type"] == "/problems/method-not-allowed"


async def test_head_answers_the_headers_of_get_without_a_body(shared: Lab) -> None:
    name = await shared.create("print('hello')")

    await until(lambda: shared.ended(name))
    for path in (
        "/livez", "/training-jobs", "/training-jobs?limit=1", f"/training-jobs/{name}",
        f"/training-jobs/{name}?follow=true", f"/training-jobs/{name}/status",
        f"/training-jobs/{name}/outputs", "/pipelines", "/pipelines/print", "/openapi.json",
        "/docs", "/metrics", "/nothing",
    ):  # fmt: skip
        get = await shared.client.get(path)
        only = await shared.client.head(path)
        assert only.status_code == get.status_code, path
        assert only.content == b""
        changing = {"date", "x-request-id", "transfer-encoding", "content-length"}
        assert {n: v for n, v in only.headers.items() if n not in changing} == {
            n: v for n, v in get.headers.items() if n not in changing
        }, path
        if "transfer-encoding" not in get.headers and path != "/metrics":
            assert only.headers["content-length"] == get.headers["content-length"], path


async def test_access_log_has_a_line_a_request_and_no_token_and_no_query(
    shared: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="model_training.access"):
        await shared.client.get(f"/training-jobs?owner={TOKEN}")
        await shared.client.get("/training-jobs", headers={"Authorization": "Bearer wrong"})
    lines = [json.loads(record.message) for record in caplog.records]
    assert [(line["method"], line["path"], line["status"]) for line in lines] == [
        ("GET", "/training-jobs", 200),
        ("GET", "/training-jobs", 401),
    ]
    assert TOKEN not in caplog.text
    assert "wrong" not in caplog.text


async def test_two_authorizations_are_refused_and_no_token_is_taken_from_the_query(
    shared: Lab,
) -> None:
    two = await shared.client.get(
        "/training-jobs",
        headers=[("Authorization", f"Bearer {TOKEN}"), ("Authorization", "Bearer x")],
    )
    assert two.status_code == 400
    query = await shared.client.get(
        f"/training-jobs?access_token={TOKEN}", headers={"Authorization": ""}
    )
    assert query.status_code == 400
    assert TOKEN not in query.text
    nothing = await shared.client.get("/training-jobs", headers={"Authorization": ""})
    assert nothing.status_code == 401
    assert nothing.headers["www-authenticate"] == "Bearer"


async def test_metrics_count_by_template_and_show_jobs_by_state(shared: Lab) -> None:
    name = await shared.create("raise SystemExit(1)")

    await until(lambda: shared.ended(name))
    await shared.client.get("/made-up/path")
    text = (await shared.client.get("/metrics")).text
    assert 'model_training_jobs{state="failed"} 1.0' in text
    assert 'method="GET",route="/training-jobs/{name}/status",status="200"' in text
    assert 'route="none",status="404"' in text
    assert name not in text
    assert "made-up" not in text
