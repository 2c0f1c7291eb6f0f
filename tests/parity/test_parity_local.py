"""This machine plays every scenario as promised. ``tests/cluster`` holds a cluster to the same."""

import asyncio

import pytest

from tests.parity.scenarios import SCENARIOS
from tests.parity.server import local_stage
from tests.parity.stage import Trace, play_all
from tests.parity.traces import differing, plain, promised

PROMISED = promised()


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trace]:
    async def play() -> dict[str, Trace]:
        async with local_stage(tmp_path_factory.mktemp("local")) as stage:
            return await play_all(stage, SCENARIOS, at_once=16)

    return asyncio.run(play())


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_is_played_as_promised(name: str, traces: dict[str, Trace]):
    assert differing(PROMISED[name], plain(traces[name])) == {}


def test_there_are_sixty_scenarios_at_least_and_each_is_promised():
    assert set(PROMISED) == set(SCENARIOS)
    assert len(SCENARIOS) >= 60
    assert not [name for name, trace in PROMISED.items() if "broken" in trace]


def test_a_difference_is_seen_wherever_it_is():
    promised = {"a": {"b": [1, 2], "c": 3}, "d": 4}
    seen = {"a": {"b": [1], "c": 3}, "e": 4}
    assert differing(promised, seen) == {"a/b": ([1, 2], [1]), "d": (4, ...), "e": (..., 4)}
    assert differing(promised, promised) == {}
