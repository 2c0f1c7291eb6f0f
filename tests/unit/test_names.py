import re
from uuid import UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from model_training import names

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
pipelines = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,29}[a-z0-9])?", fullmatch=True).filter(
    lambda name: name not in names.RESERVED_PIPELINE_NAMES
)


@given(pipelines, st.uuids())
def test_every_job_name_is_a_label_that_keeps_the_pipeline_whole(pipeline: str, identity: UUID):
    name = names.job_name(pipeline, identity)

    assert len(name) <= 63
    assert LABEL.fullmatch(name)
    assert name.startswith(f"model-training-{pipeline}-")
    assert names.is_job_name(name)
    assert names.pipeline_in_job_name(name) == pipeline


@pytest.mark.parametrize(("length", "uuid_length"), [(1, 36), (11, 36), (12, 16), (31, 16)])
def test_the_uuid_is_canonical_where_it_fits(length: int, uuid_length: int):
    name = names.job_name("p" * length, UUID("0198c0de-1111-4222-8333-444455556666"))

    assert len(name) == len("model-training-") + length + 1 + uuid_length


@given(st.uuids(version=4), st.uuids(version=4))
def test_short_ids_differ_where_uuids_do(one: UUID, other: UUID):
    assume(one.bytes[:6] + one.bytes[12:] != other.bytes[:6] + other.bytes[12:])

    assert names.short_id(one) != names.short_id(other)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("USGSTraining", "usgs-training"),
        ("XGBoostTraining", "xg-boost-training"),
        ("BERTFineTune", "bert-fine-tune"),
        ("MyTESTPipeline", "my-test-pipeline"),
        ("Train2Go", "train2-go"),
        ("digits", "digits"),
        ("sklearn-digits", "sklearn-digits"),
    ],
)
def test_camel_case_becomes_dashes(given: str, expected: str):
    assert names.parse_pipeline(given) == expected


@given(pipelines)
def test_canonical_names_stay_as_they_are(name: str):
    assert names.parse_pipeline(name) == name


@given(st.text())
def test_a_name_is_either_canonical_or_refused(name: str):
    fault = names.pipeline_fault(names.canonical_pipeline(name), path="name")
    if fault is not None:
        with pytest.raises(ValueError, match=f"^{re.escape(fault.message)}$"):
            names.parse_pipeline(name)
        return
    canonical = names.parse_pipeline(name)
    assert LABEL.fullmatch(canonical)
    assert names.parse_pipeline(canonical) == canonical


@pytest.mark.parametrize(
    "name",
    [
        "",
        "../x",
        "a" * 32,
        "a" * 300,
        "a\0b",
        "api",
        "Api",
        "-a",
        "a-",
        "a_b",
        "a.b",
        "a/b",
        "ä",
        "a\n",
    ],
)
def test_bad_pipeline_names_are_refused(name: str):
    with pytest.raises(ValueError, match="name"):
        names.parse_pipeline(name)


def test_the_limit_is_named():
    with pytest.raises(ValueError, match="at most 31 characters, this one 32"):
        names.parse_pipeline("a" * 32)


@given(st.text(min_size=1), st.text(min_size=1))
def test_a_repeatable_id_is_a_version_8_uuid_and_the_same_again(principal: str, key: str):
    identity = names.repeatable_id(principal, key)

    assert identity.version == 8
    assert identity.variant == "specified in RFC 4122"
    assert identity == names.repeatable_id(principal, key)


def test_principal_and_key_do_not_run_together():
    assert names.repeatable_id("ab", "c") != names.repeatable_id("a", "bc")


@pytest.mark.parametrize(
    ("name", "pipeline"),
    [
        ("model-training-train-2-0198c0de-1111-4222-8333-444455556666", "train-2"),
        ("model-training-train-2", None),
        ("model-training-0198c0de-1111-4222-8333-444455556666", None),
        ("other-0198c0de-1111-4222-8333-444455556666", None),
    ],
)
def test_a_foreign_job_tells_its_pipeline_only_by_a_whole_uuid(name: str, pipeline: str | None):
    assert names.pipeline_of_foreign_job(name) == pipeline


@pytest.mark.parametrize(
    "name",
    ["", "model-training-", "model-trainingx-1", "x", "model-training-a/b", "model-training-%2e"],
)
def test_names_outside_the_prefix_are_no_jobs(name: str):
    assert not names.is_job_name(name)
