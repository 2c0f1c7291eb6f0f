"""Every example of the OpenAPI document is sent to the application, and answers as described."""

from html import unescape
from pathlib import Path
from typing import Any

import httpx2
import jsonschema_rs
import pytest

from model_training.api.openapi import Operation
from model_training.api.operations import OPERATIONS
from tests.api.lab import Lab, lab
from tests.waiting import until

pytestmark = pytest.mark.anyio


async def try_example(one: Lab, operation: Operation) -> httpx2.Response:
    """Send the operation's example as its documentation shows it."""
    path, query, headers = operation.path.replace(":path}", "}"), {}, {}
    for option in operation.options:
        if option.place == "path":
            path = path.replace("{" + option.name + "}", str(option.example))
        elif option.example is not None:
            (query if option.place == "query" else headers)[option.name] = str(option.example)
    body: Any = None
    if operation.body is not None:
        [content] = operation.body["content"].values()  # pyright: ignore
        body = content["example"]
    return await one.client.request(
        operation.method, path, params=query, headers=headers, json=body
    )


def assert_described(document: dict[str, Any], operation: Operation, answer: Any) -> None:
    path = document["paths"][operation.path.replace(":path}", "}")]
    response = path[operation.method.lower()]["responses"][str(answer.status_code)]
    for name in response["headers"]:
        assert name in document["components"]["headers"]
    if "content" not in response:
        assert answer.content == b""
        return
    media_type = answer.headers["content-type"].partition(";")[0]
    schema = response["content"][media_type]["schema"]
    if media_type == "application/json":
        whole = {**schema, "components": document["components"]}
        jsonschema_rs.Draft202012Validator(whole).validate(answer.json())


async def test_every_example_is_true(tmp_path: Path) -> None:
    async with lab(tmp_path) as one:
        document = (await one.client.get("/openapi.json")).json()
        name = ""
        for operation in OPERATIONS:
            answer = await try_example(one, operation)
            assert answer.status_code == operation.answers[0].status or (
                operation.operation_id == "stopTrainingJob" and answer.status_code == 200
            ), (operation.operation_id, answer.text)
            assert_described(document, operation, answer)
            if operation.operation_id == "createTrainingJob":
                name = answer.json()["name"]
                await until(lambda name=name: one.ended(name), within=60)
                assert await one.state(name) == "succeeded"


async def test_document_describes_every_route_and_no_other(running: Lab) -> None:
    from fastapi.routing import APIRoute

    document = (await running.client.get("/openapi.json")).json()
    described = {
        (path, method.upper()) for path, item in document["paths"].items() for method in item
    }
    routes = {
        (route.path.replace(":path}", "}"), method)
        for route in running.app.routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    }
    assert described == routes
    identifiers = [
        operation["operationId"]
        for item in document["paths"].values()
        for operation in item.values()
    ]
    assert len(identifiers) == len(set(identifiers))
    for item in document["paths"].values():
        for operation in item.values():
            assert operation["summary"]
            assert operation["description"]
            assert operation["responses"]
    assert document["openapi"] == "3.1.0"


async def test_docs_page_loads_nothing_from_elsewhere(running: Lab) -> None:
    answer = await running.client.get("/docs")
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "<script" not in answer.text
    for operation in OPERATIONS:
        assert operation.summary in unescape(answer.text)
    for mark in ("src=", 'href="http', "@import", "url("):
        assert mark not in answer.text
