"""The breaker: what it lets through, by a clock that the test sets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_training.access.engines.breaker import Breaker


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def opened(clock: Clock) -> Breaker:
    breaker = Breaker(clock)
    assert [breaker.failed() for _ in range(5)] == [False, False, False, False, True]
    return breaker


def test_it_opens_on_the_fifth_failure_in_a_row(clock: Clock):
    breaker = Breaker(clock)
    for _ in range(4):
        breaker.failed()
    assert breaker.wait_s() == 0
    breaker.failed()
    assert breaker.wait_s() == 5
    clock.now += 2
    assert breaker.wait_s() == 3


def test_an_answer_between_failures_begins_the_count_again(clock: Clock):
    breaker = Breaker(clock)
    for _ in range(4):
        breaker.failed()
    breaker.answered()
    for _ in range(4):
        breaker.failed()
    assert breaker.wait_s() == 0


def test_after_five_seconds_one_may_try_and_the_others_wait(clock: Clock):
    breaker = opened(clock)
    clock.now += 5
    assert breaker.wait_s() == 0
    assert breaker.wait_s() == 1
    breaker.answered()
    assert [breaker.wait_s(), breaker.wait_s()] == [0, 0]


def test_a_try_that_fails_opens_it_again(clock: Clock):
    breaker = opened(clock)
    clock.now += 5
    assert breaker.wait_s() == 0
    assert breaker.failed() is False  # it was told already that it is open
    assert breaker.wait_s() == 5


def test_a_try_that_nobody_waited_for_is_another_ones(clock: Clock):
    breaker = opened(clock)
    clock.now += 5
    assert breaker.wait_s() == 0
    breaker.left()
    assert breaker.wait_s() == 0


def test_failures_from_before_it_opened_do_not_keep_it_open_for_longer(clock: Clock):
    breaker = opened(clock)
    clock.now += 2
    for _ in range(64):
        breaker.failed()
    assert breaker.wait_s() == 3


@given(st.lists(st.sampled_from(["wait", "answered", "failed", "left", "second"])))
def test_it_never_stays_shut_for_longer_than_five_seconds(events: list[str]):
    clock = Clock()
    breaker = Breaker(clock)
    for event in events:
        match event:
            case "wait":
                assert 0 <= breaker.wait_s() <= 5
            case "second":
                clock.now += 1
            case "answered":
                breaker.answered()
                assert breaker.wait_s() == 0
            case "failed":
                breaker.failed()
            case _:
                breaker.left()
    breaker.left()  # whoever tried has told how it went
    clock.now += 5
    assert breaker.wait_s() == 0
