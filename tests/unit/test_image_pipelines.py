"""Pipelines that are images: their labels, and what is made of what a registry says."""

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_training.access.principals import Principal, PrincipalKind
from model_training.errors import (
    ExecutorUnavailable,
    Fault,
    InvalidDeclaration,
    PipelineNotFound,
    RegistryUnavailable,
)
from model_training.images.outcomes import Absent, Present, Unknown, Unread, Unusable
from model_training.images.reference import ImageReference, parse_registry
from model_training.options import JobOptions
from model_training.pipelines.images import ImageNames, RegistrySource
from model_training.pipelines.labels import LABEL_LIMIT, read_labels
from model_training.pipelines.pipeline import BrokenPipeline, Pipeline
from model_training.pipelines.pipeline_file import read_pipeline
from model_training.submission import SubmitRequest, Target, build_spec

DIGEST = "sha256:" + "0" * 64
IMAGE = ImageReference("registry.example.org", "model-training-digits", "v1")
NAMES = ImageNames(parse_registry("registry.example.org"), "v1")
TABLES = {
    "epochs": {"type": "integer", "default": 20, "minimum": 1, "description": "passes"},
    "optimizer": {"type": "string", "choices": ["sgd", "adam"], "required": True},
    "layers": {"type": "array", "default": [64, 32]},
}


def read(**labels):
    given = {f"model-training.{key}": value for key, value in labels.items()}
    return read_labels("digits", IMAGE, digest=DIGEST, labels=given)


def faults_of(**labels):
    with pytest.raises(InvalidDeclaration) as refusal:
        read(**labels)
    start = f"{IMAGE}: model-training."
    assert all(fault.path.startswith(start) for fault in refusal.value.faults)
    return [(f.path.removeprefix(start), f.message) for f in refusal.value.faults]


# Labels


def test_an_image_without_labels_takes_any_parameter():
    pipeline = read()
    assert (pipeline.declaration, pipeline.arguments, pipeline.job) == (None, None, JobOptions())
    assert pipeline.validate({"anything": 1}) == ({"anything": 1}, ())


def test_labels_of_others_are_passed_over():
    labels = {"model-training": "x", "xmodel-training.job": "{", "org.example": "\0"}
    assert read_labels("digits", IMAGE, digest=DIGEST, labels=labels) == read()


def test_a_label_says_what_a_pipeline_toml_says(tmp_path):
    (tmp_path / "pipeline.toml").write_text(
        """
        name = "digits"
        command = ["python3", "train.py"]
        description = "Recognise digits"
        arguments = "flags"
        job = { timeout = "2h", grace = 5, memory = "4Gi" }
        [parameters]
        epochs = { type = "integer", default = 20, minimum = 1, description = "passes" }
        optimizer = { type = "string", choices = ["sgd", "adam"], required = true }
        layers = { type = "array", default = [64, 32] }
        """
    )
    folder = read_pipeline(tmp_path)
    image = read(
        description="Recognise digits",
        arguments="flags",
        job='{"timeout": "2h", "grace": 5, "memory": "4Gi"}',
        parameters=json.dumps(TABLES),
    )
    for name in ("name", "description", "arguments", "job", "declaration"):
        assert getattr(image, name) == getattr(folder, name)
    assert (image.image, image.digest) == (str(IMAGE.pinned(DIGEST)), DIGEST)


@pytest.mark.parametrize(
    ("labels", "faults"),
    [
        ({"arguments": "flag"}, [("arguments", 'expects "flags", got "flag"')]),
        (
            {"name": "x"},
            [("name", "unknown key; known are description, arguments, job, parameters")],
        ),
        ({"parameter": "{}"}, [("parameter", "unknown key; did you mean parameters?")]),
        ({"parameters": "null"}, [("parameters", "expects a table for each parameter")]),
        (
            {"parameters": '{"a": 1, "a": 2}'},
            [("parameters", 'holds the key "a" twice')],
        ),
        (
            {"parameters": '{"x": {"type": "number", "default": NaN}}'},
            [("parameters", "holds NaN, which is no JSON; send a finite number or null")],
        ),
        (
            {"parameters": "[" * 100},
            [("parameters", "is nested deeper than 64 levels, at line 1, column 65")],
        ),
        (
            {"parameters": '{"x": {"type": "object", "default": {"a": null}}}', "job": "[]"},
            [("job", "expects a table of job options, got []")],
        ),
        (
            {"job": '{"timeout": "2 hours"}'},
            [("job.timeout", "expects a time such as 90, 90s, 15m, 2h or 1d, got '2 hours'")],
        ),
        (
            {"job": '{"cpus": 1}'},
            [("job.cpus", "unknown option; known are timeout, grace, cpu, memory, gpu")],
        ),
        (
            {"description": "\0"},
            [("description", "holds U+0000, which no argument or variable can")],
        ),
        (
            {"parameters": " " * (LABEL_LIMIT + 1)},
            [("parameters", f"has {LABEL_LIMIT + 1} bytes, at most {LABEL_LIMIT} are read")],
        ),
    ],
    ids=range(12),
)
def test_a_broken_label_is_told_by_its_name(labels, faults):
    assert faults_of(**labels) == faults


@given(
    st.dictionaries(
        st.sampled_from(["parameters", "job", "arguments", "description", "x"]), st.text()
    )
)
def test_whatever_a_label_holds_is_read_or_refused(labels):
    try:
        assert read(**labels).image
    except InvalidDeclaration as refusal:
        assert refusal.faults  # noqa: PT017 both ways are right


# The source


async def known():
    return ("digits", "digit-2", "Not A Name", "api")


def source(outcome, **options):
    asked = []

    async def check(image):
        asked.append(str(image))
        return outcome

    made = RegistrySource(NAMES, check, options.pop("known", known), **options)
    return made, asked


def resolve(made, name="digits"):
    return asyncio.run(made.resolve(name))


@pytest.mark.parametrize(
    "name", ["../x", "x:y", "evil.org/x", "x@sha256:0", "", "a" * 32, "api", "X"]
)
def test_no_registry_hears_of_a_name_that_is_none(name):
    made, asked = source(Present(DIGEST))
    with pytest.raises(PipelineNotFound):
        resolve(made, name)
    assert asked == []


def test_near_names_are_a_hint_and_no_condition():
    async def broken():
        raise ExecutorUnavailable

    made, _ = source(Absent(), known=broken)
    with pytest.raises(PipelineNotFound) as refusal:
        resolve(made)
    assert refusal.value.nearest == ()


def test_a_name_is_not_near_itself():
    made, _ = source(Absent())
    with pytest.raises(PipelineNotFound) as refusal:
        resolve(made)  # known from a past job, its image deleted
    assert refusal.value.nearest == ("digit-2",)


def test_what_cannot_be_told_is_refused_for_as_long_as_the_registry_asks():
    made, _ = source(Unknown("it is away", 17))
    with pytest.raises(RegistryUnavailable) as refusal:
        resolve(made)
    assert refusal.value.retry_after == 17
    assert "registry.example.org/model-training-digits:v1 cannot be told: it is away" in str(
        refusal.value
    )


@pytest.mark.parametrize("when_unknown", ["refuse", "submit"])
def test_what_is_no_image_is_never_submitted(when_unknown):
    made, _ = source(Unusable("is no container image"), when_unknown=when_unknown)
    with pytest.raises(InvalidDeclaration) as refusal:
        resolve(made)
    assert refusal.value.faults == (Fault(str(IMAGE), "is no container image"),)


@pytest.mark.parametrize("digest", [DIGEST, None])
def test_of_an_image_whose_labels_are_not_known_nothing_is_checked(digest):
    made, _ = source(Unread(digest))
    warning = "its labels are not known, as no registry is asked: the parameters were not checked"
    assert resolve(made) == Pipeline(
        name="digits",
        folder=None,
        image=str(IMAGE.pinned(digest) if digest else IMAGE),
        digest=digest,
        warnings=(warning,),
    )


def test_without_a_check_every_name_is_an_image():
    made = RegistrySource(NAMES, None, known)
    image = "registry.example.org/model-training-digits:v1"
    assert resolve(made) == Pipeline(name="digits", folder=None, image=image)


def test_the_list_is_of_the_known_that_are_there():
    async def check(image):
        if "digit-2" in str(image):
            return Unknown("it is away")
        return Present(DIGEST, {"model-training.description": "x"})

    entries = asyncio.run(RegistrySource(NAMES, check, known).list())
    assert [(type(entry), entry.name) for entry in entries] == [
        (BrokenPipeline, "digit-2"),
        (Pipeline, "digits"),
    ]
    assert (
        entries[0].to_json()["problems"][0]["path"]
        == "registry.example.org/model-training-digit-2:v1"
    )
    assert entries[1].to_json()["image"] == str(IMAGE.pinned(DIGEST))
    assert set(entries[0].to_json()) == set(entries[1].to_json())
    assert asyncio.run(source(Absent())[0].list()) == []


# The job


def spec_of(pipeline, **parameters):
    request = SubmitRequest(pipeline="digits", parameters=parameters)
    target = Target("kubernetes", "training", lambda _: {})
    return build_spec(request, pipeline, Principal(PrincipalKind.LOCAL, "lea"), target)


def test_a_job_runs_the_image_that_was_checked():
    spec = spec_of(read(job='{"timeout": 60}'), epochs=3)
    assert (spec.image, spec.digest) == (str(IMAGE.pinned(DIGEST)), DIGEST)
    assert (spec.command, spec.folder, spec.timeout_s) == ((), None, 60.0)


def test_flags_are_the_arguments_of_its_entrypoint():
    pipeline = read(arguments="flags", parameters=json.dumps(TABLES))
    assert spec_of(pipeline, optimizer="sgd").command == (
        "--epochs", "20", "--optimizer", "sgd", "--layers", "[64,32]",
    )  # fmt: skip
