"""Image pipelines over HTTP, up to the job: what no executor is asked for.

The registry's answers are given here by a function; a real registry is asked in
tests/cluster/images.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from model_training.access.actions import Action
from model_training.access.decisions import Decision, LocalDecider, Resource
from model_training.access.principals import Principal
from model_training.images.outcomes import Absent, Outcome, Present, Unknown, Unusable
from model_training.images.reference import ImageReference, parse_registry
from model_training.pipelines.images import ImageNames, RegistrySource
from tests.api.lab import lab

pytestmark = pytest.mark.anyio

DIGEST = "sha256:" + "0" * 64
HOST = "registry.example.org"
EPOCHS = {"epochs": {"type": "integer", "minimum": 1}}
ANSWERS: dict[str, Outcome] = {
    "digits": Present(DIGEST, {"model-training.parameters": json.dumps(EPOCHS)}),
    "broken": Present(DIGEST, {"model-training.parameters": "{"}),
    "chart": Unusable("is no container image"),
    "away": Unknown("registry.example.org refuses the connection", 17),
}


async def known() -> list[str]:
    return list(ANSWERS)


async def check(image: ImageReference) -> Outcome:
    return ANSWERS.get(image.repository.removeprefix("model-training-"), Absent())


@pytest.fixture
async def running(tmp_path: Path):
    source = RegistrySource(ImageNames(parse_registry(HOST), "v1"), check, known)
    async with lab(tmp_path, source=source) as one:
        yield one
        assert (await one.client.get("/training-jobs")).json() == []  # whatever was refused


async def test_an_image_that_is_not_there_is_a_404(running):
    answer = await running.client.post("/training-jobs?pipeline=digit")
    assert answer.status_code == 404
    assert answer.json()["type"] == "/problems/pipeline-not-found"
    assert answer.json()["looked"] == [f"{HOST}/model-training-digit:v1"]
    assert answer.json()["nearest"] == ["digits"]


class Hides(LocalDecider):
    """Permits all but what is named so."""

    def __init__(self, *names: str) -> None:
        self._names = names

    async def decide(
        self, principal: Principal, action: Action, resources: Sequence[Resource]
    ) -> Sequence[Decision]:
        return [Decision(permitted=each.id not in self._names) for each in resources]


async def test_near_are_only_names_that_the_asker_may_read(tmp_path: Path):
    near = ["digits-a", "digits-b", "digits-c", "digits-d", "digits-e", "digits-f", "digits-g"]

    async def many() -> list[str]:
        return near

    source = RegistrySource(ImageNames(parse_registry(HOST), "v1"), check, many)
    decider = Hides(*near[4:])
    async with lab(tmp_path, source=source, decider=decider) as one:
        answer = await one.client.post("/training-jobs?pipeline=digits-x")
        assert answer.status_code == 404
        assert sorted(answer.json()["nearest"]) == near[1:4]  # of a tie the last
        assert not any(name in answer.text for name in near[4:])


async def test_what_cannot_be_told_is_a_503_with_the_time_to_try_again(running):
    answer = await running.client.post("/training-jobs?pipeline=away")
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "17"
    assert answer.json()["type"] == "/problems/registry-unavailable"
    assert "refuses the connection" in answer.json()["detail"]


async def test_a_broken_label_is_a_422_that_names_it(running):
    answer = await running.client.post("/training-jobs?pipeline=broken")
    assert answer.status_code == 422
    assert answer.json()["type"] == "/problems/invalid-declaration"
    [fault] = answer.json()["errors"]
    assert fault["path"] == f"{HOST}/model-training-broken:v1: model-training.parameters"


async def test_what_is_no_image_is_a_422_that_names_it(running):
    answer = await running.client.post("/training-jobs?pipeline=chart")
    assert answer.status_code == 422
    assert answer.json()["type"] == "/problems/invalid-declaration"
    fault = {"path": f"{HOST}/model-training-chart:v1", "message": "is no container image"}
    assert answer.json()["errors"] == [fault]


async def test_parameters_are_held_against_the_label(running):
    answer = await running.client.post("/training-jobs?pipeline=digits", json={"epochs": 0})
    assert answer.status_code == 422
    assert [fault["path"] for fault in answer.json()["errors"]] == ["body.epochs"]


async def test_a_pipeline_names_the_image_by_its_digest(running):
    answer = await running.client.get("/pipelines/digits")
    assert answer.json()["image"] == f"{HOST}/model-training-digits@{DIGEST}"
    assert answer.json()["parameters"] == {
        "epochs": {"type": "integer", "required": False, "minimum": 1}
    }
    listed = await running.client.get("/pipelines")
    assert [(each["name"], len(each["problems"])) for each in listed.json()] == [
        ("away", 1),
        ("broken", 1),
        ("chart", 1),
        ("digits", 0),
    ]


async def test_this_machine_runs_no_images(running):
    answer = await running.client.post("/training-jobs?pipeline=digits", json={"epochs": 1})
    assert answer.status_code == 422
    assert answer.json()["type"] == "/problems/job-rejected"
