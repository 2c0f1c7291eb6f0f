"""What is written down of decisions, and what happens when it cannot be."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from model_training.access.actions import Action
from model_training.access.asked import ASKED, Asked
from model_training.access.audit import AuditFile, AuditStdout, Verdict
from model_training.access.decisions import Decision, Resource, pipeline_resource
from model_training.access.guard import Guard
from model_training.access.principals import Principal, PrincipalKind
from model_training.errors import AccessUnavailable, SettingsError

pytestmark = pytest.mark.anyio

SECRET = "eyJhbGciOi.canary.signature"
LEA = Principal(
    PrincipalKind.USER,
    "corp/lea",
    name="lea",
    issuer="corp",
    groups=("ml",),
    fingerprint="0123456789ab",
    token=SECRET,
)
FRAUD = pipeline_resource("fraud", namespace="training", parameters=["epochs"])


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Says:
    """Permits those resources whose id is among the given ones."""

    def __init__(self, *ids: str) -> None:
        self._ids = ids

    async def decide(
        self, principal: Principal, action: Action, resources: Sequence[Resource]
    ) -> Sequence[Decision]:
        return [Decision(r.id in self._ids, "as told", id="d-1") for r in resources]


class Away:
    async def decide(
        self, principal: Principal, action: Action, resources: Sequence[Resource]
    ) -> Sequence[Decision]:
        raise AccessUnavailable("The decision point is away.")


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_a_decision_is_one_line(tmp_path: Path):
    path = tmp_path / "audit.jsonl"
    ASKED.set(Asked("r-1", "POST", "/training-jobs", "192.0.2.7"))
    guard = Guard(Says("fraud"), engine="authzen", audit=AuditFile(path))

    assert await guard.permitted(LEA, Action.CREATE, [FRAUD]) == [True]

    [line] = lines(path)
    assert line.pop("time").endswith("+00:00")
    assert line.pop("latency_ms") >= 0
    assert line == {
        "event": "decision",
        "request_id": "r-1",
        "method": "POST",
        "route": "/training-jobs",
        "client": "192.0.2.7",
        "subject": {
            "kind": "user",
            "id": "corp/lea",
            "issuer": "corp",
            "credential": "0123456789ab",
        },
        "action": "create",
        "resource": {"type": "training_pipeline", "id": "fraud"},
        "decision": "permit",
        "reason": "as told",
        "decision_id": "d-1",
        "engine": "authzen",
    }
    assert path.stat().st_mode & 0o777 == 0o600
    assert SECRET not in path.read_text()


async def test_a_list_is_one_line_with_what_was_refused(tmp_path: Path):
    path = tmp_path / "audit.jsonl"
    guard = Guard(Says("a"), audit=AuditFile(path))
    resources = [Resource("training_job", i, {"pipeline": f"p{i}", "owner": "o"}) for i in "abc"]

    await guard.permitted(LEA, Action.READ, resources)

    [line] = lines(path)
    assert (line["decision"], line["asked"], line["permitted"]) == ("list", 3, 1)
    assert line["refused"] == [
        {"type": "training_job", "id": i, "pipeline": f"p{i}", "owner": "o"} for i in "bc"
    ]


async def test_that_nobody_answered_is_a_line_too(tmp_path: Path):
    path = tmp_path / "audit.jsonl"
    guard = Guard(Away(), audit=AuditFile(path))

    with pytest.raises(AccessUnavailable):
        await guard.permitted(LEA, Action.DELETE, [FRAUD])

    [line] = lines(path)
    assert (line["decision"], line["reason"]) == ("error", "The decision point is away.")


async def test_a_log_that_was_moved_away_is_begun_anew(tmp_path: Path):
    path = tmp_path / "audit.jsonl"
    guard = Guard(Says("fraud"), audit=AuditFile(path))
    await guard.permitted(LEA, Action.CREATE, [FRAUD])
    path.rename(tmp_path / "audit.jsonl.1")
    await guard.permitted(LEA, Action.DELETE, [FRAUD])

    assert [line["action"] for line in lines(tmp_path / "audit.jsonl.1")] == ["create"]
    assert [line["action"] for line in lines(path)] == ["delete"]


def test_a_log_that_cannot_be_written_ends_the_start(tmp_path: Path):
    with pytest.raises(SettingsError, match=r"The setting audit\.file: .* cannot be written"):
        AuditFile(tmp_path / "absent" / "audit.jsonl")


def test_a_link_in_the_place_of_the_log_is_not_followed(tmp_path: Path):
    (tmp_path / "audit.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SettingsError, match=r"audit\.file"):
        AuditFile(tmp_path / "audit.jsonl")


# A process of its own, as a limit on the size of files holds for all of it.
FULL = """
import asyncio, resource, signal, sys
from pathlib import Path
sys.path.insert(0, ".")
from tests.unit.test_audit import FRAUD, LEA, Says
from model_training.access.actions import Action
from model_training.access.audit import AuditFile
from model_training.access.guard import Guard
from model_training.errors import AuditUnavailable

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
guard = Guard(Says("fraud"), audit=AuditFile(Path(sys.argv[1])))
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
print(asyncio.run(guard.permitted(LEA, Action.READ, [FRAUD])))
for action in (Action.CREATE, Action.STOP, Action.DELETE):
    try:
        asyncio.run(guard.permitted(LEA, action, [FRAUD]))
    except AuditUnavailable as error:
        print(action, "refused:", error.message)
"""


def test_what_cannot_be_written_down_is_not_done_and_can_still_be_looked_at(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "audit.jsonl")],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    refusal = "refused: The audit log cannot be written now, so nothing is changed; try again."
    assert done.stdout.splitlines() == [
        "[True]",
        f"create {refusal}",
        f"stop {refusal}",
        f"delete {refusal}",
    ]


async def test_the_standard_output_has_a_line_a_decision(capfd: pytest.CaptureFixture[str]):
    await Guard(Says("fraud"), audit=AuditStdout()).require(LEA, Action.CREATE, FRAUD)
    [line] = capfd.readouterr().out.splitlines()
    assert json.loads(line)["subject"]["id"] == "corp/lea"


CUT = """
import resource, signal, sys
from pathlib import Path
from model_training.access.audit import AuditFile
from model_training.errors import AuditUnavailable
from tests.unit.test_audit import verdict
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log = AuditFile(Path(sys.argv[1]))
log.write(verdict())
size = Path(sys.argv[1]).stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, resource.RLIM_INFINITY))
try:
    log.write(verdict())
except AuditUnavailable:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    log.write(verdict())
"""


def verdict() -> Verdict:
    return Verdict(
        principal=LEA, action=Action.CREATE, resources=[FRAUD],
        decisions=[Decision(permitted=True)], engine="roles", latency_ms=0.1,
    )  # fmt: skip


def test_a_line_that_a_full_disk_cut_spoils_no_other(tmp_path: Path):
    path = tmp_path / "audit.jsonl"
    subprocess.run(
        [sys.executable, "-c", CUT, str(path)], check=True, cwd=Path(__file__).parents[2]
    )
    first, cut, last = path.read_text().splitlines()
    assert json.loads(first)["action"] == json.loads(last)["action"] == "create"
    with pytest.raises(ValueError, match=r"."):
        json.loads(cut)
