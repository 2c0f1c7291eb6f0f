"""Pipelines found in a real registry."""

import json

import pytest

from model_training.errors import InvalidDeclaration, PipelineNotFound, RegistryUnavailable
from model_training.images.reference import parse_registry
from model_training.options import JobOptions
from model_training.pipelines.images import ImageNames, RegistrySource
from model_training.pipelines.pipeline import BrokenPipeline, Pipeline
from tests.cluster.images.registries import registry

pytestmark = pytest.mark.anyio

EPOCHS = {"epochs": {"type": "integer", "default": 20, "minimum": 1}}
LABELS = {
    "model-training.description": "Recognise handwritten digits",
    "model-training.arguments": "flags",
    "model-training.parameters": json.dumps(EPOCHS),
    "model-training.job": json.dumps({"timeout": "2h", "cpu": 2}),
    "org.opencontainers.image.title": "of others",
}
KNOWN = ("digits", "digit-2", "broken")


async def known():
    return KNOWN


@pytest.fixture
def source(open_registry, client):
    names = ImageNames(parse_registry(f"{open_registry.host}/team"), "v1")
    return RegistrySource(names, client().check, known)


async def test_an_image_is_a_pipeline(source, open_registry, push):
    digest = push.image("team/model-training-digits", "v1", LABELS)
    found = await source.resolve("digits")
    assert found.image == f"{open_registry.host}/team/model-training-digits@{digest}"
    assert found.digest == digest
    assert found.folder is None
    assert found.command == ()
    assert found.arguments == "flags"
    assert found.description == "Recognise handwritten digits"
    assert found.job == JobOptions(timeout_s=7200.0, cpu=2.0)
    assert found.validate({})[0] == {"epochs": 20}
    [fault] = found.validate({"epochs": 0})[1]
    assert fault.path == "body.epochs"


async def test_an_image_that_is_not_there_names_where_was_looked_and_what_is_near(
    source, open_registry
):
    with pytest.raises(PipelineNotFound) as refusal:
        await source.resolve("digit")
    assert refusal.value.looked == (f"{open_registry.host}/team/model-training-digit:v1",)
    assert refusal.value.nearest == ("digits", "digit-2")


async def test_broken_labels_are_told_each_with_image_and_label(source, open_registry, push):
    push.image(
        "team/model-training-broken",
        "v1",
        {
            "model-training.parameters": '{"epochs": {"type": "integr"}, "lr": {"default": null}}',
            "model-training.job": "{",
            "model-training.argument": "flags",
        },
    )
    with pytest.raises(InvalidDeclaration) as refusal:
        await source.resolve("broken")
    image = f"{open_registry.host}/team/model-training-broken:v1: model-training"
    assert sorted((fault.path, fault.message) for fault in refusal.value.faults) == [
        (f"{image}.argument", "unknown key; did you mean arguments?"),
        (f"{image}.job", "is cut: it ends before its JSON does, at line 1, column 2"),
        (
            f"{image}.parameters.epochs.type",
            'expects one of string, integer, number, boolean, object, array, got "integr"',
        ),
        (
            f"{image}.parameters.lr",
            "has no type; give one of string, integer, number, boolean, object, array",
        ),
        (f"{image}.parameters.lr.default", "is null; leave the key out"),
    ]


async def test_the_list_holds_what_is_there_and_what_is_broken(source, push):
    push.image("team/model-training-digits", "v1", LABELS)
    push.image("team/model-training-broken", "v1", {"model-training.job": "[]"})
    entries = await source.list()
    assert [(type(entry), entry.name) for entry in entries] == [
        (BrokenPipeline, "broken"),
        (Pipeline, "digits"),
    ]
    assert entries[0].problems[0].message == "expects a table of job options, got []"


async def test_where_the_registry_is_away_a_setting_decides(tmp_path, storage, client):
    with registry(tmp_path, storage) as running:
        running.stop()
        names = ImageNames(parse_registry(running.host), "v1")
        with pytest.raises(RegistryUnavailable) as refusal:
            await RegistrySource(names, client().check, known).resolve("digits")
        image = f"{running.host}/model-training-digits:v1"
        reason = f"{running.host} refuses the connection"
        assert refusal.value.message == (
            f"Whether there is an image {image} cannot be told: {reason}. "
            "Nothing was started; try again."
        )
        submitting = RegistrySource(names, client().check, known, when_unknown="submit")
        found = await submitting.resolve("digits")
        assert (found.image, found.digest, found.declaration) == (image, None, None)
        warning = f"the image was not checked, so the parameters were not either: {reason}"
        assert found.warnings == (warning,)
        [broken] = [
            e
            for e in await RegistrySource(names, client().check, known).list()
            if e.name == "digits"
        ]
        assert broken.problems[0].path == image
