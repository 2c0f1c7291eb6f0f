"""The file of roles: who may do what, how mistakes are told, and what a change does."""

import contextlib
import json
import logging
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_training.access.actions import Action
from model_training.access.decisions import (
    Resource,
    pair_resource,
    pipeline_resource,
    service_resource,
)
from model_training.access.engines import roles
from model_training.access.engines.role_file import PATTERNS_LIMIT, ROLE_FILE_BYTES
from model_training.access.engines.roles import RolesDecider
from model_training.access.principals import Principal, PrincipalKind
from model_training.errors import SettingsError
from tests.unit.test_api_keys import no_more_files

HOSTILE = {
    "rules that are alike": "[roles.a]\nallow = [\n"
    + "".join(f'{{actions=["read"],pipelines=["*a{n}"]}},\n' for n in range(PATTERNS_LIMIT))
    + "]\n",
    "two rules of many patterns": "[roles.a]\nallow = [\n"
    + "".join(
        f'{{actions=["read"],pipelines={json.dumps([f"*{end}{n}" for n in range(500)])}}},\n'
        for end in "ab"
    )
    + "]\n",
    "more patterns than are looked at": "[roles.a]\nallow = [\n"
    + '{actions=["read"],pipelines=["*"]},\n' * (ROLE_FILE_BYTES // 40)
    + "]\n",
    "tables in tables": "".join(f"[a{n}.b.c.d.e.f.g.h.i.j.k.l.m]\n" for n in range(3500)),
    "more than is read": "#" * (2**20),
}

pytestmark = pytest.mark.anyio

FILE = """
[roles.scientist]
service = ["list"]
allow = [
    { actions = ["create", "list", "read", "read_logs"], pipelines = ["fraud-*"] },
    { actions = ["stop", "delete"], pipelines = ["fraud-*"], owner = "self" },
]

[roles.operator]
service = ["*"]
allow = [{ actions = ["*"], pipelines = ["*"] }]

[[bindings]]
role = "scientist"
principals = ["corp/lea"]
groups = ["corp/data"]

[[bindings]]
role = "operator"
roles = ["corp/ops"]
principals = ["local"]
"""
FILE = FILE.replace('service = ["*"]', 'service = ["list", "read"]')


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "roles.toml"
    path.write_text(FILE)
    path.chmod(0o644)
    return path


def user(name: str, *, issuer: str = "corp", **more: tuple[str, ...]) -> Principal:
    return Principal(PrincipalKind.USER, f"{issuer}/{name}", issuer=issuer, **more)


LEA = user("lea")
BY_GROUP = user("ben", groups=("data",))
OPS = user("kim", roles=("ops",))
OTHERS_GROUP = user("eve", issuer="evil", groups=("data",), roles=("ops",))
OTHERS_NAME = user("lea", issuer="evil")
LOCAL = Principal(PrincipalKind.LOCAL, "local")
NOBODY = user("nobody")

HERS = pair_resource("fraud-daily", "corp/lea")
HIS = pair_resource("fraud-daily", "corp/ben")
OTHER = pair_resource("churn", "corp/lea")
SERVICE = service_resource("training")
FRAUD = pipeline_resource("fraud-daily")
ALL = pipeline_resource("training", all=True)

TABLE: list[tuple[Principal, Action, Resource, bool]] = [
    (LEA, Action.CREATE, FRAUD, True),
    (LEA, Action.CREATE, pipeline_resource("churn"), False),
    (LEA, Action.CREATE, pipeline_resource("fraud"), False),
    (LEA, Action.READ, HERS, True),
    (LEA, Action.READ, HIS, True),
    (LEA, Action.READ, OTHER, False),
    (LEA, Action.STOP, HERS, True),
    (LEA, Action.STOP, HIS, False),
    (LEA, Action.DELETE, OTHER, False),
    (LEA, Action.READ_OUTPUTS, HERS, False),
    (LEA, Action.LIST, SERVICE, True),
    (LEA, Action.READ, SERVICE, False),
    (LEA, Action.LIST, FRAUD, True),
    (LEA, Action.LIST, ALL, True),
    (LEA, Action.READ, FRAUD, True),
    (BY_GROUP, Action.STOP, HIS, True),
    (BY_GROUP, Action.STOP, HERS, False),
    (OPS, Action.DELETE, OTHER, True),
    (OPS, Action.READ, SERVICE, True),
    (LOCAL, Action.DELETE, OTHER, True),
    (OTHERS_GROUP, Action.READ, HERS, False),
    (OTHERS_NAME, Action.READ, HERS, False),
    (NOBODY, Action.LIST, SERVICE, False),
    (NOBODY, Action.LIST, ALL, False),
    (LEA, Action.READ, Resource("training_secret", "x"), False),
]


@pytest.mark.parametrize(("who", "action", "resource", "permitted"), TABLE)
async def test_who_may_do_what(path: Path, who, action, resource, permitted):
    [decision] = await RolesDecider(path).decide(who, action, [resource])
    assert decision.permitted is permitted


@pytest.mark.parametrize("who", [LEA, BY_GROUP, OPS, OTHERS_GROUP, NOBODY])
async def test_asked_together_or_one_by_one_is_the_same(path: Path, who: Principal):
    decider = RolesDecider(path)
    resources = [HERS, HIS, OTHER, SERVICE, FRAUD, ALL]
    for action in Action:
        together = await decider.decide(who, action, resources)
        alone = [(await decider.decide(who, action, [each]))[0] for each in resources]
        assert list(together) == alone


# The same said in another way, of files that are made up.

_ACTIONS = st.lists(st.sampled_from(["create", "read", "stop"]), min_size=1, unique=True)
_RULE = st.fixed_dictionaries(
    {"actions": _ACTIONS, "pipelines": st.lists(st.sampled_from(["a", "b*", "*c"]), min_size=1)},
    optional={"owner": st.sampled_from(["self", "anybody"])},
)
_FILES = st.dictionaries(st.sampled_from("xyz"), st.lists(_RULE, min_size=1, max_size=2))


def plainly(roles: dict, had: Sequence[str], action: str, pipeline: str, *, own: bool) -> bool:
    """Whether some rule of some role that is had says so."""
    for role in had:
        for rule in roles[role]["allow"]:
            patterns = {
                "a": pipeline == "a",
                "b*": pipeline.startswith("b"),
                "*c": pipeline.endswith("c"),
            }
            is_of = any(patterns[pattern] for pattern in rule["pipelines"])
            if action in rule["actions"] and is_of and (own or rule.get("owner") != "self"):
                return True
    return False


def toml_of(roles: dict[str, list[dict]], had: Sequence[str]) -> str:
    lines: list[str] = []
    for name, rules in roles.items():
        lines += [f"[roles.{name}]", "allow = ["]
        for rule in rules:
            fields = ", ".join(f"{key} = {value!r}" for key, value in rule.items())
            lines.append(f"  {{ {fields} }},")
        lines.append("]")
    for name in had:
        lines += ["[[bindings]]", f"role = '{name}'", "principals = ['corp/lea']"]
    return "\n".join(lines)


@settings(max_examples=150, deadline=None)
@given(_FILES, st.data())
async def test_it_decides_as_the_file_says(tmp_path_factory, roles, data):
    had = data.draw(st.lists(st.sampled_from(sorted(roles)), unique=True)) if roles else []
    path = tmp_path_factory.mktemp("roles") / "roles.toml"
    text = toml_of(roles, had)
    path.write_text(text)
    try:
        decider = RolesDecider(path)
    except SettingsError as error:
        assert "overlap" in error.message  # noqa: PT017 - the only reason why it may be refused
        return
    plain = tomllib.loads(text).get("roles", {})
    for pipeline in ("a", "b", "bc", "c", "d"):
        for owner in ("corp/lea", "corp/ben"):
            for action in ("create", "read", "stop", "delete"):
                [decision] = await decider.decide(
                    LEA, Action(action), [pair_resource(pipeline, owner)]
                )
                own = owner == "corp/lea"
                assert decision.permitted == plainly(plain, had, action, pipeline, own=own)


# Mistakes

BAD = {
    "no TOML": ("[roles", "is not valid TOML"),
    "an action that is none": (
        FILE.replace('"create", ', '"fly", '),
        r'roles\.scientist\.allow\[0\]\.actions: "fly" is no action; they are create, list',
    ),
    "no actions": (
        FILE.replace('actions = ["*"]', "actions = []"),
        r"roles\.operator\.allow\[0\]\.actions: expects a list of at least one action",
    ),
    "a star among others": (
        FILE.replace('actions = ["*"]', 'actions = ["*", "read"]'),
        r"has other actions beside \*",
    ),
    "a pattern that is none": (
        FILE.replace('pipelines = ["*"]', 'pipelines = ["a/b"]'),
        r'roles\.operator\.allow\[0\]\.pipelines: "a/b" is no name of a pipeline',
    ),
    "no patterns": (FILE.replace('pipelines = ["*"]', "pipelines = []"), "at least one pattern"),
    "an owner that is none": (FILE.replace('"self"', '"me"'), r"allow\[1\]\.owner"),
    "overlapping rules": (
        FILE.replace(
            '{ actions = ["stop"',
            '{ actions = ["read"], pipelines = ["*-daily"] },\n{ actions = ["stop"',
        ),
        r"scientist\.allow\[0\] and \[1\] overlap: both give read on 'fraud-\*' and '\*-daily'",
    ),
    "an action that a service has not": (
        FILE.replace('service = ["list"]', 'service = ["list", "delete"]'),
        r"roles\.scientist\.service: delete is no action on the service",
    ),
    "a role that allows nothing": (FILE + "[roles.empty]\n", r"roles\.empty allows nothing"),
    "a role that is not there": (
        FILE.replace('role = "operator"', 'role = "root"'),
        r'bindings\[1\]: there is no role "root"',
    ),
    "a binding of nobody": (
        FILE + '[[bindings]]\nrole = "operator"\n',
        r"bindings\[2\] gives operator to nobody",
    ),
    "a group of nobody's": (
        FILE.replace('"corp/data"', '"data"'),
        r'bindings\[0\]: "data" does not say whose it is',
    ),
    "a binding twice": (
        FILE + '[[bindings]]\nrole = "scientist"\nprincipals = ["corp/lea"]\n',
        r"bindings\[0\] and \[2\] both give scientist to corp/lea",
    ),
    "an unknown key": (
        FILE.replace("owner =", "owners ="),
        r"roles\.scientist\.allow\[1\]\.owners: there is no such key",
    ),
}


@pytest.mark.parametrize(("text", "sentence"), BAD.values(), ids=BAD)
def test_a_mistake_ends_the_start_and_is_told_with_its_place(path: Path, text, sentence):
    path.write_text(text)
    with pytest.raises(SettingsError, match=sentence) as refused:
        RolesDecider(path)
    assert refused.value.message.startswith(f"The setting decisions.file: {path}")


def test_a_file_that_others_can_write_ends_the_start(path: Path):
    path.chmod(0o666)
    with pytest.raises(SettingsError, match="can be written by others; run: chmod go-w"):
        RolesDecider(path)


def test_a_file_that_is_not_there_ends_the_start(tmp_path: Path):
    with pytest.raises(SettingsError, match=r"decisions\.file: .*cannot be read: No such file"):
        RolesDecider(tmp_path / "absent.toml")


async def may_read_churn(decider: RolesDecider) -> bool:
    [decision] = await decider.decide(LEA, Action.READ, [OTHER])
    return decision.permitted


async def test_a_change_counts_at_the_next_question(path: Path):
    decider = RolesDecider(path)
    assert not await may_read_churn(decider)
    path.write_text(FILE.replace('["fraud-*"] }', '["fraud-*", "churn"] }'))
    assert await may_read_churn(decider)
    path.write_text(FILE)
    assert not await may_read_churn(decider)


async def test_a_bad_change_keeps_the_last_good_file_and_says_so_once(path: Path, caplog):
    decider = RolesDecider(path)
    with caplog.at_level(logging.ERROR):
        path.write_text(FILE.replace("churn", "").replace('"create"', '"fly"'))
        for _ in range(3):
            [decision] = await decider.decide(LEA, Action.READ, [HERS])
            assert decision.permitted
    assert len(caplog.records) == 1
    assert "is no action; they are" in caplog.text
    path.write_text(FILE.replace('["fraud-*"] }', '["fraud-*", "churn"] }'))
    assert await may_read_churn(decider)


async def test_a_file_whose_mode_is_mended_is_read(path: Path):
    decider = RolesDecider(path)
    path.write_text(FILE.replace('["fraud-*"] }', '["fraud-*", "churn"] }'))
    path.chmod(0o664)
    assert not await may_read_churn(decider)
    path.chmod(0o644)
    assert await may_read_churn(decider)


async def test_what_could_not_be_read_for_a_moment_is_read_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(roles, "AGAIN_S", 0.0)
    decider = RolesDecider(path)
    path.write_text(FILE.replace('["fraud-*"] }', '["fraud-*", "churn"] }'))
    with no_more_files():
        assert not await may_read_churn(decider)
    assert await may_read_churn(decider)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_no_file_takes_long_to_read(path: Path, text: str):
    path.write_text(text)
    began = time.process_time()
    with contextlib.suppress(SettingsError):
        RolesDecider(path)
    assert time.process_time() - began < 1.0


def test_more_patterns_than_can_be_held_against_each_other_are_refused(path: Path):
    names = ", ".join(f'"p{number}"' for number in range(PATTERNS_LIMIT + 1))
    path.write_text(f'[roles.a]\nallow = [{{actions = ["read"], pipelines = [{names}]}}]\n')
    with pytest.raises(SettingsError, match=rf"there are 1001 names of .* {PATTERNS_LIMIT} are"):
        RolesDecider(path)
