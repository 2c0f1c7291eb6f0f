"""A service, a decision point that changes its mind, and everybody who may ask.

The service is the real one, a process with its access file. Credentials are made here by hand, so
that nothing of the product says what a good one is.
"""

import asyncio
import hashlib
import itertools
import json
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from anyio.from_thread import BlockingPortal, start_blocking_portal

from tests.api.asking import Headers
from tests.api.kept import states
from tests.api.test_access import FORGE, ISSUER, Service, serving, user
from tests.unit.access_lab.lying_pdp import JSON, Asked, FakePdp, Said, fake_pdp, nonsense
from tests.waiting import until

AUDIENCE = "model-training"
PIPELINE = """
name = "{name}"
description = "canary-description"
command = ["sh", "-c", "{command}"]
"""
COMMANDS = {
    "quick": "echo canary-log; echo canary-output > $MODEL_TRAINING_OUTPUT/model.json",
    "endless": "exec sleep 600",
}
ACCESS = f"""
local_token = true

[[issuers]]
name = "corp"
issuer = "{ISSUER}"
audience = "{AUDIENCE}"
algorithms = ["RS256"]
key = "corp.pem"

[api_keys]
file = "api-keys.json"

[decisions]
engine = "authzen"
url = "{{url}}"
"""
ACTIONS = ("create", "list", "read", "read_logs", "read_outputs", "stop", "delete")


# Who asks


def api_key(identity: str, actions: Iterable[str], *, ended: bool = False) -> tuple[str, dict]:
    """A key, and what a service keeps of it; all are of one holder."""
    secret = hashlib.sha256(identity.encode()).hexdigest()[:43]
    now = time.time()
    return f"mta_{identity}_{secret}", {
        "id": identity,
        "name": "nightly",
        "digest": hashlib.sha256(secret.encode()).hexdigest(),
        "actions": sorted(actions),
        "pipelines": ["*"],
        "created_at": now - 100,
        "expires_at": now - 50 if ended else now + 10_000,
    }


KEYS = {"any": api_key("aaaaaaaa", ACTIONS), "ended": api_key("bbbbbbbb", ACTIONS, ended=True)} | {
    action: api_key("c" * 7 + letter, [each for each in ACTIONS if each != action])
    for action, letter in zip(ACTIONS, "abcdefg", strict=True)
}
"""by what they are not good for"""
LATER = time.time() + 10_000


def jwt(name: str, **claims: object) -> str:
    return user(name, **{"exp": LATER, **claims})


class Sent(NamedTuple):
    """A credential as it is sent."""

    headers: Headers
    query: str = ""


def bearer(token: str) -> Sent:
    return Sent([("Authorization", f"Bearer {token}")])


def bad_credentials() -> dict[str, list[Sent]]:
    """Of each bad state some forms, of which a cell takes one by turns."""
    lea, kim, key = jwt("lea"), jwt("kim"), KEYS["any"][0]
    unsigned = FORGE.sign({"alg": "none", "typ": "JWT"}, FORGE.claims(sub="lea"), "RS256")
    claims = FORGE.claims(sub="lea", exp=LATER)
    other_key = FORGE.sign({"alg": "RS256", "typ": "JWT"}, claims, "by the encryption key")
    return {
        "none": [Sent([]), Sent([("Cookie", f"token={lea}; session={key}")])],
        "malformed": [
            Sent([("Authorization", value)])
            for value in (
                "Basic bGVhOmxlYQ==",
                "Bearer",
                f"Bearer {lea} {lea}",
                f"Token {lea}",
                lea,
            )
        ],
        "forged": [
            bearer(token)
            for token in (
                other_key,
                unsigned.rpartition(".")[0] + ".",
                f"{lea[:-8]}AAAAAAAA",
                "mta_zzzzzzzz_" + "x" * 43,
                f"{key[:-1]}_",
                "opaque",
            )
        ],
        "expired": [bearer(user("lea", exp=time.time() - 100)), bearer(KEYS["ended"][0])],
        "for another service": [bearer(jwt("lea", aud="other"))],
        "two at once": [
            Sent(bearer(lea).headers + bearer(kim).headers),
            Sent(bearer(lea).headers + bearer(lea).headers),
            Sent(bearer(lea).headers, f"access_token={lea}"),
            Sent([], f"token={lea}"),
            Sent([*bearer(lea).headers, ("X-API-Key", key)]),
            Sent([*bearer(lea).headers, ("Proxy-Authorization", f"Bearer {kim}")]),
        ],
    }


class Caller(NamedTuple):
    """Somebody we know."""

    name: str
    owner: str
    sent: Sent


# Who decides


Question = dict[str, Any]


def own_alone(question: Question) -> bool:
    about = question["resource"]
    if about["type"] == "training_job":
        return about["properties"]["owner"] == question["subject"]["id"]
    return about["type"] == "training_pipeline" or question["action"]["name"] == "list"


POLICIES: dict[str, Callable[[Question], bool]] = {
    "permit": lambda _: True,
    "read_alone": lambda question: question["action"]["name"] == "read",
    "own": own_alone,
    "others": own_alone,
    "deny": lambda _: False,
}
DECISIONS = (*POLICIES, "away", "slow", "nonsense")


class DecisionPoint:
    """The lying one, on a port that stays its own while it is away."""

    def __init__(self, portal: BlockingPortal) -> None:
        self._portal = portal
        self._context: AbstractContextManager[FakePdp]
        self._fake: FakePdp
        self._port = 0
        self._before: list[Asked] = []
        self._start()
        self._port = int(self.url.rpartition(":")[2])

    @property
    def url(self) -> str:
        return self._fake.url

    @property
    def asked(self) -> list[Asked]:
        """All that it was asked, also before it was away."""
        return [*self._before, *self._fake.asked]

    def _start(self) -> None:
        self._context = self._portal.wrap_async_context_manager(fake_pdp(port=self._port))
        self._fake = self._context.__enter__()

    def close(self) -> None:
        self._before += self._fake.asked
        self._context.__exit__(None, None, None)

    def decide(self, policy: Callable[[Question], bool]) -> None:
        """Somebody called ``ops`` may look whatever else is said."""
        self._fake.permits = lambda question: (
            question["subject"]["id"] == "corp/ops" or policy(question)
        )

    @contextmanager
    def behaving(self, decision: str) -> Iterator[None]:
        """As one of ``DECISIONS``, and well again behind it."""
        if decision == "away":
            self.close()
        elif decision == "slow":
            self._portal.call(self._fake.may_answer.clear)
        elif decision == "nonsense":
            bodies = itertools.cycle(nonsense("decision").values())
            self._fake.said = lambda _: Said(next(bodies).encode(), JSON)
        else:
            self.decide(POLICIES[decision])
        try:
            yield
        finally:
            if decision == "away":
                self._start()
            self._portal.call(self._fake.may_answer.set)
            self._fake.said = lambda _: None
            self.decide(POLICIES["permit"])


# The service, and what lies in its data folder


@dataclass
class World:
    service: Service
    point: DecisionPoint
    callers: list[Caller]
    """JWT, API key, local token"""
    ops: Sent
    jobs: dict[tuple[str, str], str] = field(default_factory=dict)
    """name by owner and by how it is: ended, running"""

    def post(self, sent: Sent, path: str, method: str = "POST") -> Any:
        return self.service.ask(method, path, headers=dict(sent.headers), json={"m": "canary"})

    def create(self, sent: Sent, how: str) -> str:
        pipeline = {"ended": "quick", "running": "endless"}[how]
        answer = self.post(sent, f"/training-jobs?pipeline={pipeline}")
        assert answer.status_code == 201, answer.text
        return answer.json()["name"]

    def settled(self, names: Iterable[str]) -> None:
        """Wait until jobs have ended, or run."""
        for name in names:
            what = "running" if "endless" in name else "succeeded"
            wait(lambda name=name, what=what: states(self.data)[name] == what)

    def well(self) -> None:
        """The decision point is asked again, after it was away, and no job is about to change."""
        wait(lambda: self.looked() == 200)
        wait(self._is_quiet)

    def _is_quiet(self) -> bool:
        now = states(self.data)
        running = {name for name, state in now.items() if state == "running"}
        return (
            set(now.values()) <= {"running", "succeeded", "stopped"}
            and all("endless" in name for name in running)
            and {path.name for path in (self.data / "jobs/.open").iterdir()} == running
        )

    def looked(self) -> int:
        return self.service.ask("GET", "/metrics", headers=dict(self.ops.headers)).status_code

    @property
    def data(self) -> Path:
        return self.service.root / "data"

    def remove_all(self) -> None:
        with ThreadPoolExecutor(8) as pool:
            paths = [f"/training-jobs/{name}?wait=60" for name in states(self.data)]
            list(pool.map(lambda path: self.post(self.ops, path, "DELETE"), paths))


def wait(predicate: Callable[[], bool]) -> None:
    asyncio.run(until(predicate, within=60))


def write_files(root: Path, url: str) -> None:
    for name, command in COMMANDS.items():
        folder = root / "pipelines" / name
        folder.mkdir(parents=True)
        (folder / "pipeline.toml").write_text(PIPELINE.format(name=name, command=command))
    (root / "corp.pem").write_bytes(FORGE.pem())
    (root / "access.toml").write_text(ACCESS.format(url=url))
    (root / "config.toml").write_text("principal_rate = 10000\n")
    keys = root / "api-keys.json"
    keys.touch(0o600)
    keys.write_text(json.dumps({"keys": [record for _, record in KEYS.values()]}))


@contextmanager
def world_in(root: Path) -> Iterator[World]:
    """A service with jobs of three callers and of somebody else, ended and running."""
    with start_blocking_portal() as portal:
        point = DecisionPoint(portal)
        write_files(root, point.url)
        with serving(root, "--config", str(root / "config.toml"), "--slots", "24") as service:
            token = (root / "data/token").read_text().strip()
            callers = [
                Caller("JWT", "corp/lea", bearer(jwt("lea"))),
                Caller("API key", "key/nightly", bearer(KEYS["any"][0])),
                Caller("local token", "local", bearer(token)),
            ]
            one = World(service, point, callers, bearer(jwt("ops")))
            for caller in (*callers, Caller("JWT", "corp/ben", bearer(jwt("ben")))):
                for how in ("ended", "running"):
                    one.jobs[caller.owner, how] = one.create(caller.sent, how)
            one.settled(one.jobs.values())
            yield one
            one.well()
            one.remove_all()
        point.close()
