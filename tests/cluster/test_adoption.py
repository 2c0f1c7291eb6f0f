"""A server comes back to its jobs: killed, without its ledger, or after others deleted its Jobs.

One story is played on the cluster: jobs in every state, people who delete some of their Jobs, the
server killed; more of the same while it is down; then it is started again, and at last once more
without its ledger. The tests look at what was told on the way.
"""

import asyncio
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest

from model_training.executors.kubernetes import paths
from model_training.folders import DataFolder
from tests.cluster.conftest import Kubectl
from tests.cluster.service import client_of, start
from tests.cluster.status_lab import PATIENCE_S, Lab, Object, lab_in, options
from tests.waiting import until

pytestmark = pytest.mark.timeout(300)

REMOVED = "the job was removed by something other than this service; nobody saw it end"
LAST_WORDS = "echo words; sleep 300"
HELD = "example.com/held"


@dataclass
class Server:
    """One data folder, and the server on it, which is killed and started again."""

    folder: Path
    options: list[str]
    lab: Lab
    process: subprocess.Popen[str] | None = None
    client: httpx2.AsyncClient | None = None

    async def start(self) -> None:
        """Start it; it is ready."""
        self.process = start(self.folder, *self.options)
        self.client = self.lab.client = client_of(self.process, self.folder)

        async def ready() -> bool:
            return (await self.client.get("/readyz")).status_code == 200

        await until(ready, 30)

    async def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        assert self.client is not None
        self.lab.client = None
        await self.client.aclose()
        with self.process:
            self.process.kill()

    def lose_ledger(self) -> None:
        """While it is down."""
        ledger = DataFolder(self.folder / "data").ledger
        for file in ledger.parent.glob(f"{ledger.name}*"):
            file.unlink()


@dataclass
class Story:
    """What was told: name of a part of the story to the record of its job."""

    names: dict[str, str] = field(default_factory=dict[str, str])
    before: dict[str, Object] = field(default_factory=dict[str, Object])
    """when the server was killed"""
    after: dict[str, Object] = field(default_factory=dict[str, Object])
    """at the end, before the ledger is lost"""
    rebuilt: dict[str, Object] = field(default_factory=dict[str, Object])
    """from the cluster alone"""
    listed: list[str] = field(default_factory=list[str])
    """at the end, before the ledger is lost"""
    order: list[str] = field(default_factory=list[str])
    """of those in the rebuilt ledger"""
    logs: dict[str, bytes] = field(default_factory=dict[str, bytes])
    gaps: dict[str, str] = field(default_factory=dict[str, str])
    """where their logs have some"""
    orphans: dict[str, bool] = field(default_factory=dict[str, bool])
    """whether a pod without its Job was there before our DELETE, and after it"""
    held: Object = field(default_factory=dict[str, object])
    """what was told of a job whose Job is being deleted by others and is not gone yet"""


@pytest.fixture(scope="module")
def story(
    kubeconfig: Path,
    kubectl: Kubectl,
    namespace: str,
    registry: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Story:
    folder = tmp_path_factory.mktemp("adoption")

    async def play() -> Story:
        async with (
            lab_in(kubeconfig, kubectl, namespace, registry) as lab,
            served(folder, options(kubeconfig, lab), lab) as server,
        ):
            return await tell(lab, server)

    return asyncio.run(play())


@asynccontextmanager
async def served(folder: Path, given: list[str], lab: Lab) -> AsyncGenerator[Server]:
    server = Server(folder, given, lab)
    await server.start()
    try:
        yield server
    finally:
        await server.kill()


# The story

OTHERS = {"in the background": "Background", "in the foreground": "Foreground", "alone": "Orphan"}
"""how kubectl deletes a Job: --cascade=background, foreground, orphan"""


async def tell(lab: Lab, server: Server) -> Story:
    story = Story()
    await asyncio.gather(*(begin(lab, story, *each) for each in BEGINNINGS if each not in LATE))
    await asyncio.gather(*(delete_behind(lab, story, "up", how) for how in OTHERS))
    await expire(lab, story, "ended, TTL, up")
    await asyncio.gather(*(begin(lab, story, *each) for each in LATE))
    await asyncio.gather(*(
        lab.ask(method, f"/training-jobs/{story.names[name]}{more}")
        for method, name, more in ASKED
    ))  # fmt: skip
    story.before = await records(lab, story)
    await server.kill()
    await happen_meanwhile(lab, story)
    await server.start()
    await settle(lab, story)
    story.after = await records(lab, story)
    story.listed = await listed(lab)
    for name in story.after:
        answer = await lab.ask("GET", f"/training-jobs/{story.names[name]}")
        story.logs[name] = answer.content
        story.gaps[name] = answer.headers.get("model-training-gaps", "")
    await remove_orphans(lab, story)
    await server.kill()
    server.lose_ledger()
    await server.start()
    story.rebuilt = await records(lab, story)
    story.order = await listed(lab)
    return story


ASKED = [
    ("POST", "being stopped", "/stop"),
    ("POST", "being stopped, gone meanwhile", "/stop"),
    ("DELETE", "deleting", ""),
]

BEGINNINGS: list[tuple[str, str, dict[str, str]]] = [
    ("running", LAST_WORDS, {"timeout": "1h", "memory": "64Mi", "cpu": "0.1", "grace": "5"}),
    ("pending", "true", {"cpu": "500"}),
    ("ends meanwhile", "echo words; sleep 5; exit 4", {}),
    ("being stopped", "trap '' TERM; echo words; sleep 300 & wait; sleep 300", {"grace": "12"}),
    ("being stopped, gone meanwhile", LAST_WORDS, {"grace": "2"}),
    ("deleting", "trap '' TERM; echo words; sleep 300 & wait; sleep 300", {"grace": "12"}),
    ("ended", "echo words; exit 3", {}),
    *((f"ended, TTL, {when}", "echo words", {}) for when in ("up", "down")),
    *((f"ended, deleted {how}, {when}", "echo words", {})
      for how in OTHERS for when in ("up", "down")),
    *((f"running, deleted {how}, {when}", LAST_WORDS, {"grace": "2"})
      for how in OTHERS for when in ("up", "down")),
    ("ends meanwhile, and is deleted", "echo words; sleep 5", {}),
    ("ends meanwhile, and is being deleted", "echo words; sleep 5; exit 5", {}),
]  # fmt: skip
LATE = [each for each in BEGINNINGS if each[0].startswith("ends meanwhile")]


async def begin(lab: Lab, story: Story, name: str, code: str, given: dict[str, str]) -> None:
    """Start a job; it is in the state that its name begins with."""
    job = story.names[name] = await lab.post(code, **given)
    match name.partition(",")[0].split():
        case ["pending"]:
            await lab.tells(job, "pending", "Unschedulable")
        case ["ended"]:
            await until(lambda: any(each["finished_at"] for each in lab.told.get(job, ())), 60)
        case _:
            await lab.tells(job, "running")


async def delete_behind(lab: Lab, story: Story, when: str, how: str) -> None:
    """Delete Jobs as others do; returns once they are gone."""
    names = [story.names[f"{state}, deleted {how}, {when}"] for state in ("running", "ended")]
    for name in names:
        await lab.delete_job(name, OTHERS[how])
    await gone(lab, *names)


async def gone(lab: Lab, *names: str) -> None:
    for name in names:
        path = paths.job(lab.namespace, name)

        async def is_gone(path: str = path) -> bool:
            return await lab.get(path) is None

        await until(is_gone, PATIENCE_S)


async def expire(lab: Lab, story: Story, name: str) -> None:
    """A person sets a TTL on a Job that has ended; the cluster deletes it."""
    await lab.patch("job", story.names[name], {"spec": {"ttlSecondsAfterFinished": 0}})
    await gone(lab, story.names[name])


async def happen_meanwhile(lab: Lab, story: Story) -> None:
    """While no server looks: jobs end, and people delete Jobs of all kinds."""
    await asyncio.gather(*(delete_behind(lab, story, "down", how) for how in OTHERS))
    await expire(lab, story, "ended, TTL, down")
    await asyncio.gather(*(
        ended(lab, story.names[name]) for name in story.names if name.startswith("ends meanwhile")
    ))  # fmt: skip
    await lab.delete_job(story.names["ends meanwhile, and is deleted"], "Background")
    await gone(lab, story.names["being stopped, gone meanwhile"])
    held = story.names["ends meanwhile, and is being deleted"]
    await asyncio.sleep(1.1)  # an end in the same second as its deletion counts as its doing
    await lab.patch("job", held, {"metadata": {"finalizers": [HELD]}})
    await lab.delete_job(held, "Background")


async def ended(lab: Lab, name: str) -> None:
    async def has_ended() -> bool:
        job = await lab.get(paths.job(lab.namespace, name))
        kinds = {each["type"] for each in (job or {})["status"].get("conditions", ())}
        return bool(kinds & {"Complete", "Failed"})

    await until(has_ended, PATIENCE_S)


async def settle(lab: Lab, story: Story) -> None:
    """What is under way comes to its end."""
    names = story.names
    held = names["ends meanwhile, and is being deleted"]
    story.held = await lab.tells(held, "failed", "Error")
    await lab.patch("job", held, {"metadata": {"finalizers": None}})
    await gone(lab, held)
    await lab.tells(names["being stopped"], "stopped")
    await lab.tells(names["ends meanwhile"], "failed", "Error")

    async def is_unknown() -> bool:
        answer = await lab.ask("GET", f"/training-jobs/{names['deleting']}/status")
        return answer.status_code == 404

    await until(is_unknown, PATIENCE_S)
    assert await lab.pods(names["deleting"]) == []


async def records(lab: Lab, story: Story) -> dict[str, Object]:
    """The record of each job that there is."""
    found: dict[str, Object] = {}
    for name, job in story.names.items():
        answer = await lab.ask("GET", f"/training-jobs/{job}/status")
        if answer.status_code == 200:
            found[name] = answer.json()
    return found


async def listed(lab: Lab) -> list[str]:
    return [record["name"] for record in (await lab.ask("GET", "/training-jobs")).json()]


async def remove_orphans(lab: Lab, story: Story) -> None:
    """Our DELETE finds the pods that were left without their Job."""
    name = story.names["running, deleted alone, down"]
    story.orphans["before"] = bool(await lab.pods(name))
    answer = await lab.ask("DELETE", f"/training-jobs/{name}", {"wait": "60"})
    assert answer.status_code == 204, answer.text
    story.orphans["after"] = bool(await lab.pods(name))


# What was told


def test_a_running_job_is_followed_on(story: Story):
    assert story.after["running"] == story.before["running"]
    assert story.after["running"]["state"] == "running"


def test_a_pending_job_still_waits_for_the_same(story: Story):
    assert story.after["pending"] == story.before["pending"]
    assert story.after["pending"]["reason"] == "Unschedulable"


def test_an_end_that_nobody_saw_is_told(story: Story):
    record = story.after["ends meanwhile"]
    assert (record["state"], record["reason"], record["exit_code"]) == ("failed", "Error", 4)
    assert record["started_at"] == story.before["ends meanwhile"]["started_at"]
    assert story.logs["ends meanwhile"] == b"words\n"


def test_a_stop_goes_on(story: Story):
    assert story.before["being stopped"]["state"] == "stopping"
    record = story.after["being stopped"]
    assert (record["state"], record["exit_code"]) == ("stopped", 137)
    assert story.logs["being stopped"] == b"words\n"


def test_a_stop_that_nobody_saw_happen_is_told_as_such(story: Story):
    record = story.after["being stopped, gone meanwhile"]
    assert (record["state"], record["exit_code"]) == ("stopped", None)
    assert "nobody saw" in record["message"]


def test_a_log_has_a_gap_where_a_job_went_while_nobody_looked(story: Story):
    gone = {f"running, deleted {how}, down" for how in OTHERS}
    gone |= {"running, deleted alone, up", "being stopped, gone meanwhile"}
    gone |= {"ends meanwhile, and is deleted"}
    assert {name for name, gaps in story.gaps.items() if gaps} == gone
    assert {story.gaps[name] for name in gone} == {"6-7"}


def test_a_delete_goes_on(story: Story):
    assert story.before["deleting"]["state"] == "deleting"
    assert "deleting" not in story.after


@pytest.mark.parametrize("when", ["up", "down"])
@pytest.mark.parametrize("how", ["deleted " + each for each in OTHERS] + ["TTL"])
def test_what_had_ended_stays_as_it_was(how: str, when: str, story: Story):
    name = f"ended, {how}, {when}"
    record = story.after[name]
    assert (record["state"], record["exit_code"]) == ("succeeded", 0)
    assert record == story.before[name]
    assert story.names[name] in story.listed
    assert story.logs[name] == b"words\n"


@pytest.mark.parametrize("when", ["up", "down"])
@pytest.mark.parametrize("how", OTHERS)
def test_what_ran_was_removed_outside(how: str, when: str, story: Story):
    name = f"running, deleted {how}, {when}"
    record = story.after[name]
    assert (record["state"], record["reason"]) == ("failed", "RemovedOutside")
    assert (record["message"], record["exit_code"]) == (REMOVED, None)
    assert record["finished_at"] is not None
    assert story.names[name] in story.listed
    assert story.logs[name] == b"words\n"


def test_what_ended_and_was_deleted_while_nobody_looked_was_removed_outside(story: Story):
    record = story.after["ends meanwhile, and is deleted"]
    assert (record["state"], record["reason"]) == ("failed", "RemovedOutside")
    assert story.logs["ends meanwhile, and is deleted"] == b"words\n"


def test_an_end_before_a_deletion_by_others_is_true(story: Story):
    """Its Job has still to go when the server comes back, and is gone later."""
    assert (story.held["reason"], story.held["exit_code"]) == ("Error", 5)
    assert story.after["ends meanwhile, and is being deleted"] == story.held


def test_pods_without_their_job_are_deleted_with_it(story: Story):
    assert story.orphans == {"before": True, "after": False}


@pytest.mark.parametrize("name", ["running", "pending", "ended", "ends meanwhile"])
def test_a_lost_ledger_is_rebuilt(name: str, story: Story):
    """All of it: owner, parameters and options too."""
    assert story.rebuilt[name] == story.after[name]


def test_a_rebuilt_ledger_has_what_the_cluster_knows_newest_first(story: Story):
    names = ("running", "pending", "ended", "ends meanwhile")
    known = sorted(names, key=lambda name: story.after[name]["created_at"], reverse=True)
    # Those that were accepted at the same moment may have stood the other way round before.
    assert story.order == [story.names[name] for name in known]
