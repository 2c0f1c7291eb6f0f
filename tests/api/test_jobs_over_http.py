import httpx2
import pytest

from model_training.names import JOB_PREFIX
from tests.api.lab import Lab
from tests.waiting import until

pytestmark = pytest.mark.anyio

JSON = {"Content-Type": "application/json"}


async def test_created_job_is_durable_listed_and_shown(running: Lab) -> None:
    answer = await running.client.post(
        "/training-jobs?pipeline=print", json={"CODE": "print('hello')"}
    )
    job = answer.json()
    assert answer.status_code == 201
    assert job["name"].startswith(f"{JOB_PREFIX}print-")
    assert answer.headers["location"] == f"/training-jobs/{job['name']}/status"
    listed = (await running.client.get("/training-jobs")).json()
    assert [one["name"] for one in listed] == [job["name"]]
    shown = (await running.client.get(answer.headers["location"])).json()
    assert shown["parameters"] == {"CODE": "print('hello')"}
    await until(lambda: running.ended(job["name"]))
    assert await running.state(job["name"]) == "succeeded"


async def test_dry_run_tells_the_argv_and_creates_nothing(running: Lab) -> None:
    answer = await running.client.post("/training-jobs?pipeline=print&dry_run=true", json={})
    assert answer.status_code == 200
    assert "main.py" in str(answer.json())
    assert (await running.client.get("/training-jobs")).json() == []


async def test_repeat_with_the_same_key_answers_the_same_job(running: Lab) -> None:
    key = {"Idempotency-Key": "one"}
    first = await running.client.post("/training-jobs?pipeline=print", json={"A": 1}, headers=key)
    again = await running.client.post("/training-jobs?pipeline=print", json={"A": 1}, headers=key)
    other = await running.client.post("/training-jobs?pipeline=print", json={"A": 2}, headers=key)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json()["name"] == first.json()["name"]
    assert other.status_code == 409
    assert other.json()["type"] == "/problems/idempotency-conflict"
    assert len((await running.client.get("/training-jobs")).json()) == 1


async def test_unknown_pipeline_tells_where_it_looked_and_creates_nothing(running: Lab) -> None:
    answer = await running.client.post("/training-jobs?pipeline=pint")
    problem = answer.json()
    assert answer.status_code == 404
    assert problem["type"] == "/problems/pipeline-not-found"
    assert problem["nearest"] == ["print"]
    assert any(place.endswith("pipelines") for place in problem["looked"])
    assert (await running.client.get("/training-jobs")).json() == []


async def test_all_faults_of_a_request_are_in_one_answer(running: Lab) -> None:
    answer = await running.client.post(
        "/training-jobs?pipeline=digits&timeot=1&gpu=many&timeout=0",
        json={"epochs": "ten", "nonsense": 1, "hidden": 4},
        headers={"Idempotency-Key": "x" * 256},
    )
    problem = answer.json()
    paths = {fault["path"] for fault in problem["errors"]}
    assert answer.status_code == 422
    assert paths == {
        "query.timeot", "query.gpu", "query.timeout", "header.Idempotency-Key",
        "body.epochs", "body.nonsense",
    }  # fmt: skip


async def test_older_name_of_pipeline_works_and_both_are_refused(running: Lab) -> None:
    old = await running.client.post("/training-jobs?pipeline_step=print&dry_run=true")
    camel = await running.client.post("/training-jobs?pipeline=Print&dry_run=true")
    both = await running.client.post("/training-jobs?pipeline_step=print&pipeline=print")
    assert (old.status_code, camel.status_code) == (200, 200)
    assert both.status_code == 422


async def test_integers_beyond_64_bits_survive(running: Lab) -> None:
    answer = await running.client.post("/training-jobs?pipeline=print", json={"SEED": 2**80})
    assert answer.json()["parameters"] == {"SEED": 2**80}
    listed = (await running.client.get("/training-jobs")).json()
    assert listed[0]["parameters"] == {"SEED": 2**80}


async def test_stop_ends_the_job_and_keeps_it(running: Lab) -> None:
    name = await running.create("import time; print('up'); time.sleep(60)")
    await until(lambda: is_printing(running, name))
    asked = await running.client.post(f"/training-jobs/{name}/stop")
    assert asked.status_code == 202
    assert asked.json()["state"] == "stopping"
    await until(lambda: running.ended(name))
    assert await running.state(name) == "stopped"
    again = await running.client.post(f"/training-jobs/{name}/stop")
    assert again.status_code == 200
    assert again.json()["state"] == "stopped"


async def is_printing(running: Lab, name: str) -> bool:
    return bool((await running.client.get(f"/training-jobs/{name}")).content)


async def test_delete_answers_204_once_nothing_is_left(running: Lab) -> None:
    name = await running.create("import time; time.sleep(60)")
    gone = await running.client.delete(f"/training-jobs/{name}?wait=20")
    assert gone.status_code == 204
    assert gone.content == b""
    assert (await running.client.get(f"/training-jobs/{name}")).status_code == 404
    assert (await running.client.delete(f"/training-jobs/{name}")).status_code == 404


async def test_delete_without_waiting_shows_the_job_until_it_is_gone(running: Lab) -> None:
    name = await running.create("import time; time.sleep(60)")
    asked = await running.client.delete(f"/training-jobs/{name}")
    assert asked.status_code == 202
    assert asked.json()["state"] == "deleting"

    async def gone() -> bool:
        answer = await running.client.get(f"/training-jobs/{name}/status")
        assert answer.status_code == 404 or answer.json()["state"] == "deleting"
        return answer.status_code == 404

    await until(gone)


async def test_pages_hold_every_job_once_newest_first(running: Lab) -> None:
    names = [await running.create() for _ in range(7)]
    seen: list[str] = []
    link: str | None = "/training-jobs?limit=3&pipeline=print"
    while link:
        answer = await running.client.get(link)
        assert len(answer.json()) <= 3
        seen += [job["name"] for job in answer.json()]
        link = answer.links["next"]["url"] if "next" in answer.links else None
    assert seen == names[::-1]


async def test_cursor_of_another_filter_or_made_up_is_refused(running: Lab) -> None:
    for _ in range(2):
        await running.create()
    page = await running.client.get("/training-jobs?limit=1")
    cursor = page.links["next"]["url"].partition("cursor=")[2]
    other = await running.client.get(f"/training-jobs?limit=1&owner=x&cursor={cursor}")
    made_up = await running.client.get("/training-jobs?limit=1&cursor=AAAA")
    for answer in (other, made_up):
        assert answer.status_code == 422
        assert [fault["path"] for fault in answer.json()["errors"]] == ["query.cursor"]


async def test_whole_list_is_one_array_or_a_line_a_job(running: Lab) -> None:
    names = [await running.create() for _ in range(3)]
    whole = await running.client.get("/training-jobs")
    lines = await running.client.get("/training-jobs", headers={"Accept": "application/x-ndjson"})
    assert [job["name"] for job in whole.json()] == names[::-1]
    assert lines.headers["content-type"] == "application/x-ndjson"
    assert len(lines.text.splitlines()) == 3
    assert "link" not in whole.headers


async def test_filters_by_group_and_pipeline(running: Lab) -> None:
    good = await running.create()
    bad = await running.create("raise SystemExit(3)")
    for name in (good, bad):
        await until(lambda name=name: running.ended(name))

    async def names(query: str) -> list[str]:
        answer = await running.client.get(f"/training-jobs?{query}")
        assert answer.status_code == 200, answer.text
        return [job["name"] for job in answer.json()]

    assert await names("state=completed") == [good]
    assert await names("state=failed") == [bad]
    assert await names("state=failed&state=succeeded") == [bad, good]
    assert await names("state=active") == []
    assert await names("pipeline=prin") == []
    assert await names("created_after=2000-01-01T00:00:00Z&owner=local") == [bad, good]
    assert await names("created_before=2000-01-01T00:00:00%2B01:00") == []


async def test_outputs_are_listed_and_fetched_with_digest_and_range(running: Lab) -> None:
    import base64
    import hashlib

    code = (
        "import os, pathlib; p = pathlib.Path(os.environ['MODEL_TRAINING_OUTPUT']);"
        "(p / 'a').mkdir(); (p / 'a' / 'm\\u00f6del 1.bin').write_bytes(bytes(range(256)));"
        "(p / 'empty').write_bytes(b''); (p / 'out').symlink_to('/etc/passwd')"
    )
    name = await running.create(code)
    await until(lambda: running.ended(name))
    listed = (await running.client.get(f"/training-jobs/{name}/outputs")).json()
    assert [(one["path"], one["size"]) for one in listed] == [("a/mödel 1.bin", 256), ("empty", 0)]
    at = f"/training-jobs/{name}/outputs/a/m%C3%B6del%201.bin"
    whole = await running.client.get(at)
    digest = base64.b64encode(hashlib.sha256(bytes(range(256))).digest()).decode()
    assert whole.content == bytes(range(256))
    assert whole.headers["repr-digest"] == f"sha-256=:{digest}:"
    part = await running.client.get(at, headers={"Range": "bytes=250-"})
    assert (part.status_code, part.content) == (206, bytes(range(250, 256)))
    assert part.headers["content-range"] == "bytes 250-255/256"
    beyond = await running.client.get(at, headers={"Range": "bytes=256-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, "bytes */256")
    empty = await running.client.get(f"/training-jobs/{name}/outputs/empty")
    assert (empty.status_code, empty.content) == (200, b"")
    for path in ("out", "../spec.json", "a/../../spec.json", "%2e%2e/spec.json", "a%2Fx", "", "a"):
        # Sent as it stands: a client would tidy the dots away.
        url = httpx2.URL(running.url, raw_path=f"/training-jobs/{name}/outputs/{path}".encode())
        answer = await running.client.get(url)
        assert answer.status_code == 404, path


async def test_pipelines_are_described_and_a_broken_one_tells_why(running: Lab) -> None:
    from tests.api.lab import write_pipeline

    folder = running.data.root.parent / "pipelines"
    write_pipeline(folder, "broken", 'name = "broken"\ncomand = ["x"]\n')
    answer = await running.client.get("/pipelines")
    by_name = {one["name"]: one for one in answer.json()}
    assert by_name["print"]["problems"] == []
    assert any("pipeline.toml:2" in fault["path"] for fault in by_name["broken"]["problems"])
    one = await running.client.get("/pipelines/digits")
    assert one.json()["parameters"]["epochs"]["type"] == "integer"
    assert (await running.client.get("/pipelines/nothing")).status_code == 404
    assert (await running.client.get("/pipelines/..%2fdigits")).status_code == 404
