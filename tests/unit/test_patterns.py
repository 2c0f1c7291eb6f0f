"""Patterns of pipelines, against what they mean said in another way."""

import itertools
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_training.access.patterns import matches, overlap, parse_pattern

PATTERNS = st.text("ab*", max_size=6).filter(lambda text: "**" not in text)
NAMES = ["".join(signs) for size in range(8) for signs in itertools.product("ab", repeat=size)]


def meant(pattern: str) -> re.Pattern[str]:
    return re.compile("".join(".*" if sign == "*" else sign for sign in pattern))


@given(PATTERNS, st.text("ab", max_size=8))
def test_a_star_stands_for_any_signs(pattern: str, name: str):
    assert matches(pattern, name) == (meant(pattern).fullmatch(name) is not None)


@given(PATTERNS, PATTERNS)
def test_two_overlap_if_some_name_is_of_both(one: str, other: str):
    # A name of both needs no more signs than both have together without their stars.
    both = any(meant(one).fullmatch(name) and meant(other).fullmatch(name) for name in NAMES)
    assert overlap(one, other) >= both
    if len(one.replace("*", "")) + len(other.replace("*", "")) <= 7:
        assert overlap(one, other) == both


@pytest.mark.parametrize("text", ["digits", "*", "fraud-*", "*-nightly", "a*b*c", "x" * 31])
def test_what_a_pattern_may_be(text: str):
    assert parse_pattern(text) == text


@pytest.mark.parametrize("text", ["", "**", "a**b", "A", "a.b", "a/b", "-a", "a-", "a?", "x" * 32])
def test_what_it_may_not(text: str):
    with pytest.raises(ValueError, match=r"is no name|beside each other|is longer"):
        parse_pattern(text)


def test_a_hostile_name_takes_no_time():
    began = time.process_time()
    matches("*a" * 16 + "*b", "a" * 65_536)
    assert time.process_time() - began < 0.05
