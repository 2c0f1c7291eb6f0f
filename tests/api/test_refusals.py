"""Every route, for somebody who may do nothing, and for somebody we do not know."""

from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from fastapi.routing import APIRoute

from tests.api.kept import kept
from tests.api.lab import Lab, RefuseAll, lab
from tests.waiting import until

pytestmark = pytest.mark.anyio

PROBES = {"/livez", "/readyz"}
METHODS = ("GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS", "TRACE")


def routes(lab: Lab) -> list[str]:
    return sorted({route.path for route in lab.app.routes if isinstance(route, APIRoute)})


def filled(path: str, name: str) -> str:
    return (
        path.replace("{name}", name)
        .replace("{path:path}", "model.json")
        .replace("{pipeline}", "print")
    )


def itself(path: str) -> list[str]:
    return [path]


def forms(path: str) -> list[str]:
    """A path, and how else it could be written so that somebody takes it for the same."""
    return [
        path, f"{path}/", f"/{path}", path.replace("/", "//"), f"/.{path}", f"/x/..{path}",
        f"{path};x", f"{path}%2F", f"{path}%00", f"{path}/.", "/" + path[1:].replace("/", "%2F"),
        path.upper(), path.replace("-", "%2D"), path.replace("s", "%73"),
    ]  # fmt: skip


async def walk(
    one: Lab,
    name: str,
    headers: dict[str, str],
    written: Callable[[str], list[str]] = itself,
) -> list[httpx2.Response]:
    """Ask for every path, as it may be written, with every method; all answers but the probes'."""
    answers: list[httpx2.Response] = []
    for path in routes(one):
        query = "?pipeline=print" if path == "/training-jobs" else ""
        for form in written(filled(path, name)):
            for method in METHODS:
                answer = await ask(one, method, form + query, headers)
                if form in PROBES:
                    assert (answer.status_code == 200) == (method in {"GET", "HEAD"})
                else:
                    answers.append(answer)
    return answers


async def ask(one: Lab, method: str, target: str, headers: dict[str, str]) -> httpx2.Response:
    return await one.client.request(
        method,
        "/",
        headers=[("Content-Type", "application/json")]
        + [(name, value.encode()) for name, value in headers.items()],
        extensions={"target": target.encode()},  # as it is written, and not made regular
    )


async def prepared(root: Path) -> str:
    """A data folder with one finished job in it; its name."""
    async with lab(root) as one:
        name = await one.create(
            "import os; open(os.environ['MODEL_TRAINING_OUTPUT'] + '/model.json', 'w').write('1')"
        )

        await until(lambda: one.ended(name))

        return name


async def test_every_route_is_walked(running: Lab) -> None:
    assert len(routes(running)) >= 13
    assert len(running.app.routes) == len(
        [r for r in running.app.routes if isinstance(r, APIRoute)]
    )


async def test_refused_principal_gets_nothing_and_changes_nothing(tmp_path: Path) -> None:
    name = await prepared(tmp_path)
    before = kept(tmp_path / "data")
    async with lab(tmp_path, decider=RefuseAll()) as one:
        answers = await walk(one, name, {}, forms)
    # 422: of a job called `.`, with the option of the list.
    assert {answer.status_code for answer in answers} == {403, 404, 405, 422}
    assert kept(tmp_path / "data") == before
    async with lab(tmp_path) as one:
        assert [job["name"] for job in (await one.client.get("/training-jobs")).json()] == [name]
        assert await one.state(name) == "succeeded"


async def test_stranger_gets_nothing_and_changes_nothing(tmp_path: Path) -> None:
    name = await prepared(tmp_path)
    before = kept(tmp_path / "data")
    async with lab(tmp_path) as one:
        for authorization in ("", "Bearer", "Bearer wrong", "Basic dXNlcjpwYXNz", "bearer\ta", "é"):
            answers = await walk(one, name, {"Authorization": authorization})
            assert {answer.status_code for answer in answers} <= {401, 405}, authorization
    assert kept(tmp_path / "data") == before


async def test_hidden_job_and_absent_job_answer_the_same(tmp_path: Path) -> None:
    name = await prepared(tmp_path)
    async with lab(tmp_path, decider=RefuseAll()) as one:
        other = name[:-1] + ("0" if name[-1] != "0" else "1")
        for method, suffix in (
            ("GET", ""), ("GET", "/status"), ("GET", "/outputs"), ("GET", "/outputs/model.json"),
            ("POST", "/stop"), ("DELETE", ""),
        ):  # fmt: skip
            hidden = await one.client.request(method, f"/training-jobs/{name}{suffix}")
            absent = await one.client.request(method, f"/training-jobs/{other}{suffix}")
            assert hidden.status_code == absent.status_code == 404
            same = {"x-request-id", "date"}
            assert {k: v for k, v in hidden.headers.items() if k not in same} == {
                k: v for k, v in absent.headers.items() if k not in same
            }
            assert hidden.json()["detail"].replace(name, other) == absent.json()["detail"]
