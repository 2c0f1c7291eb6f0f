import pytest

from model_training.access.principals import Principal, PrincipalKind
from model_training.api.shares import BURST_S, Shares
from model_training.errors import TooManyRequests

LEA = Principal(PrincipalKind.USER, "corp/lea")
BEN = Principal(PrincipalKind.API_KEY, "key/ben")


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def taken(shares: Shares, who: Principal) -> int:
    """How many requests they get at once."""
    count = 0
    try:
        while True:
            shares.take_request(who)
            count += 1
    except TooManyRequests:
        return count


def test_a_caller_has_a_burst_and_then_the_rate():
    clock = Clock()
    shares = Shares(rate=5, followers=1, now=clock)

    assert taken(shares, LEA) == 5 * BURST_S
    clock.seconds += 1
    assert taken(shares, LEA) == 5
    clock.seconds += 3600
    assert taken(shares, LEA) == 5 * BURST_S


def test_what_one_takes_is_not_missing_to_another():
    shares = Shares(rate=1, followers=1, now=Clock())
    taken(shares, LEA)
    assert taken(shares, BEN) == BURST_S


def test_a_refusal_says_when_to_come_again():
    shares = Shares(rate=1, followers=1, now=Clock())
    taken(shares, LEA)
    with pytest.raises(TooManyRequests, match="more than 1 requests a second") as refused:
        shares.take_request(LEA)
    assert refused.value.retry_after == 1


def test_the_user_of_this_machine_has_no_share():
    shares = Shares(rate=1, followers=1, now=Clock())
    local = Principal(PrincipalKind.LOCAL, "local")
    for _ in range(1000):
        shares.take_request(local)
        shares.take_follower(local)
