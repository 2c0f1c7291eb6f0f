"""Followers are asked about again: who they are, and whether they may, each as themselves."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from model_training.access.principals import Principal, PrincipalKind
from model_training.api.rechecks import Permit, Rechecks
from model_training.errors import Forbidden, Unauthenticated
from tests.api.lab import lab
from tests.waiting import until

pytestmark = pytest.mark.anyio

LEA = Principal(PrincipalKind.USER, "corp/lea", fingerprint="one")


class KnowsNobody:
    async def authenticate(self, headers: Mapping[str, str]) -> Principal:
        raise Unauthenticated


async def test_whose_credential_was_revoked_follows_no_longer(tmp_path: Path):
    async with lab(tmp_path, recheck_s=0.3) as one, asyncio.timeout(20):
        name = await one.create("import time; print('on', flush=True); time.sleep(60)")
        events = {"Accept": "text/event-stream"}
        async with one.client.stream("GET", f"/training-jobs/{name}", headers=events) as answer:
            text = ""
            async for piece in answer.aiter_text():
                text += piece
                if "on" in text:
                    one.app.state.authenticator = KnowsNobody()
        assert 'event: access_ended\ndata: {"reason":"refused"}' in text


@dataclass(eq=False)
class Tab:
    told: list[str] = field(default_factory=list)

    def expel(self, reason: str) -> None:
        self.told.append(reason)


async def test_who_comes_while_others_are_sent_away_is_asked_about_too():
    answers = [Forbidden(), None, None, None]
    asked = 0

    async def ask() -> None:
        nonlocal asked
        asked += 1
        if answers and (error := answers.pop(0)):
            raise error

    rechecks, slow, second = Rechecks(0.05), Tab(), Tab()
    permit = Permit(LEA, "a-job", ask)
    rechecks.enter(slow, permit)
    await until(lambda: slow.told == ["refused"], 5)
    rechecks.enter(second, permit)
    rechecks.leave(slow)
    await until(lambda: asked >= 3, 5)
    assert second.told == []
    rechecks.leave(second)
