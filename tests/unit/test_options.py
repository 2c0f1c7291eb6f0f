"""Job options: what people may write, and what each text means."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_training.options import JobOptions, parse_duration, parse_options, parse_size

GOOD = [
    ({"timeout": "90"}, {"timeout_s": 90.0}),
    ({"timeout": "1.5h"}, {"timeout_s": 5400.0}),
    ({"timeout": "30d"}, {"timeout_s": 2_592_000.0}),
    ({"grace": "0"}, {"grace_s": 0.0}),
    ({"grace": "1h"}, {"grace_s": 3600.0}),
    ({"cpu": "500m"}, {"cpu": 0.5}),
    ({"cpu": "1024"}, {"cpu": 1024.0}),
    ({"memory": "1048576"}, {"memory": 2**20}),
    ({"memory": "1.5Gi"}, {"memory": 3 * 2**29}),
    ({"memory": "2G"}, {"memory": 2 * 10**9}),
    ({"memory": "64Ti"}, {"memory": 2**46}),
    ({"gpu": "64"}, {"gpu": 64}),
    ({"gpu": "0", "dry_run": "true"}, {"gpu": 0}),
]


@pytest.mark.parametrize(("given_", "meant"), GOOD)
def test_an_option_is_read_in_its_unit(given_, meant):
    assert parse_options(given_) == (JobOptions(**meant), ())


BAD = {
    "timeout": [
        "",
        "0",
        "0.5s",
        "31d",
        "-1",
        "1 h",
        "1w",
        "1e3",
        "nan",
        "inf",
        "\u0661",
        "1_0",
        "9" * 20,
    ],
    "grace": ["3601", "2h", "-0", "x"],
    "cpu": ["0", "0m", "1025", "1.", ".5", "2cpu", "2M"],
    "memory": ["1", "1023Ki", "65Ti", "1.5", "1Pi", "4GiB", "4 Gi", "-4Gi"],
    "gpu": ["65", "1.0", "-1", "all", "", "1" * 5000],
}


@pytest.mark.parametrize(("name", "text"), [(n, text) for n in BAD for text in BAD[n]])
def test_anything_else_is_refused_at_its_path_with_what_is_expected(name, text):
    options, [fault] = parse_options({name: text})
    assert options == JobOptions()
    assert fault.path == f"query.{name}"
    assert fault.message.startswith("expects ")
    assert len(fault.message) < 120


def test_all_faults_are_told_at_once():
    _, faults = parse_options(
        dict.fromkeys(("timeout", "grace", "cpu", "memory", "gpu"), "x"), path="job"
    )
    assert [f.path for f in faults] == [
        "job.timeout", "job.grace", "job.cpu", "job.memory", "job.gpu",
    ]  # fmt: skip


@given(
    st.integers(0, 10**9),
    st.sampled_from([("", 1), ("s", 1), ("m", 60), ("h", 3600), ("d", 86400)]),
)
def test_a_duration_is_its_number_times_its_unit(number, unit):
    assert parse_duration(f"{number}{unit[0]}") == number * unit[1]


@given(
    st.integers(0, 10**9),
    st.sampled_from([("", 1), ("Ki", 2**10), ("Gi", 2**30), ("k", 10**3), ("T", 10**12)]),
)
def test_a_size_is_its_number_times_its_unit(number, unit):
    assert parse_size(f"{number}{unit[0]}") == number * unit[1]


@given(st.text(max_size=20))
def test_any_text_is_read_or_refused_in_words(text):
    for parse in (parse_duration, parse_size):
        words = ""
        try:
            assert parse(text) >= 0
        except ValueError as refusal:
            words = str(refusal)
        assert not words or words.startswith("expects ")
