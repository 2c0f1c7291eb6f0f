"""Thousands of tokens, each judged twice; ``scripts/fuzz`` sends a hundred thousand."""

import pytest

from tests.unit.second_opinion import LAXER, RULES
from tests.unit.token_fuzz import fuzz_tokens

pytestmark = pytest.mark.anyio

TOKENS = 5000


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_no_forged_token_is_believed_and_every_other_judgement_is_explained() -> None:
    report = await fuzz_tokens(TOKENS, seed=20261128)

    assert report.sent == TOKENS
    assert report.good > TOKENS / 20
    assert report.wrong == []
    # A rule that explains nothing would hide what it once explained.
    assert report.by_rule.keys() == {*RULES, *LAXER}
