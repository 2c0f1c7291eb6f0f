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


def test_every_small_pattern_means_what_it_says():
    """All of them, because what goes wrong at repeated signs is seldom met by chance."""
    texts = ("".join(signs) for size in range(6) for signs in itertools.product("ab*", repeat=size))
    names = [name for name in NAMES if len(name) <= 5]
    for pattern in texts:
        is_of = meant(pattern).fullmatch
        wrong = [n for n in names if matches(pattern, n) != (is_of(n) is not None)]
        assert not wrong, pattern


def test_every_two_small_patterns_overlap_where_a_name_shows_it():
    texts = ["".join(signs) for size in range(4) for signs in itertools.product("ab*", repeat=size)]
    names = [name for name in NAMES if len(name) <= 6]
    of = {text: {name for name in names if meant(text).fullmatch(name)} for text in texts}
    for one, other in itertools.product(texts, repeat=2):
        assert overlap(one, other) == bool(of[one] & of[other]), (one, other)


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


BIG = 65_536  # signs: more than any header or body lets in
HOSTILE = {
    "many stars": ("*a" * 16 + "*b", "a" * BIG),
    "as many stars as signs": ("a*" * (BIG // 2), "a" * BIG),
    "stars that all fit but the last": ("*a" * (BIG // 2) + "*b*", "a" * BIG),
    "a part that nearly fits everywhere": ("*" + "a" * 1000 + "b*", "a" * BIG),
    "one that differs at its beginning": ("*b" + "a" * (BIG // 2) + "*", "a" * BIG),
    "one that differs in the middle": ("*" + "a" * 999 + "b" + "a" * 999 + "*", "a" * BIG),
    "half of it": ("*" + "a" * (BIG // 2) + "b*", "a" * BIG),
    "a period": ("*" + "ab" * (BIG // 4) + "c*", "ab" * (BIG // 2)),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_name_takes_no_time(case: str):
    pattern, name = HOSTILE[case]
    began = time.process_time()
    matches(pattern, name)
    # Ten times what it takes here; one that goes back takes minutes.
    assert time.process_time() - began < 0.5


def test_two_of_the_longest_are_compared_at_once():
    one = parse_pattern("*".join("a" * 31))
    other = parse_pattern("*".join("a" * 30) + "*b")
    began = time.process_time()
    assert not overlap(one, other)
    assert time.process_time() - began < 0.5
