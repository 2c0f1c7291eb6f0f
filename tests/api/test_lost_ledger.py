"""What is asked while a lost ledger is being rebuilt from the jobs that are there."""

from pathlib import Path

import pytest

from model_training.access.decisions import LocalDecider
from model_training.access.principals import LocalToken
from model_training.ledger.ledger import JobFilter
from model_training.service import TrainingService
from model_training.settings import load_settings
from tests.api.lab import TOKEN, lab, open_parts
from tests.waiting import until

pytestmark = pytest.mark.anyio


async def test_a_list_asked_for_before_the_rebuild_has_every_job(tmp_path: Path) -> None:
    async with lab(tmp_path) as one:
        names = {await one.create() for _ in range(3)}
        for name in names:
            await until(lambda name=name: one.ended(name))
        data = one.data
    for file in data.root.glob("ledger.sqlite3*"):
        file.unlink()

    settings = load_settings(data=data.root, pipelines=(tmp_path / "pipelines",))
    who = await LocalToken(TOKEN).authenticate({"authorization": f"Bearer {TOKEN}"})
    for whole in (False, True):
        async with open_parts(settings, LocalDecider(), 1) as parts:
            service = TrainingService(parts, disk_reserve=0)
            assert not service.ready
            if whole:
                pages = await service.all_jobs(who, JobFilter())
                found = {job.name async for jobs in pages for job in jobs}
            else:
                page = await service.page(who, JobFilter(), limit=10, cursor=None)
                found = {job.name for job in page.jobs}
        assert found == names
        for file in data.root.glob("ledger.sqlite3*"):
            file.unlink()
