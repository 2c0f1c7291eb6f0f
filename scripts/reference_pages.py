"""The reference pages that the code itself tells: every setting, every command,
every right on a cluster, and what each route answers to whom.

``scripts/docs`` writes them; tests/unit/test_docs.py fails when a committed page is not what is
written here. All other pages are written by hand and held against the code by the same tests.
"""

import inspect
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import get_args, get_type_hints

import click
from annotated_types import Ge, Gt, Le
from pydantic import BeforeValidator

from model_training.cli.main import cli
from model_training.executors.kubernetes.rights import (
    ACCESS_REVIEWS,
    REVIEW_RIGHTS,
    RIGHTS,
    TOKEN_REVIEWS,
    Right,
)
from model_training.settings import PREFIX, Settings
from tests.api.access_expectations import (
    BAD_CREDENTIALS,
    ELSEWHERE,
    PROBES,
    ROWS,
    WRONG_METHOD,
    Answers,
    Row,
)

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"
WIDTH = 100

SETTINGS_INTRO = """\
# Settings of the service

A value comes from the first of: the option of `model-training serve`, the variable, the TOML
file, the default. The file is the one named by `--config` or `MODEL_TRAINING_CONFIG`, else
`$XDG_CONFIG_HOME/model-training/config.toml` (`~/.config/model-training/config.toml`) if it is
there; it holds `name = value` lines, and relative folders in it are relative to the file. An
empty variable counts as unset. An unknown or wrong setting stops the start and is named with its
source and the way out.
"""
COMMAND_INTRO = """\
# The command `model-training`

What `--help` says, for each command.
"""
RIGHTS_INTRO = """\
# Rights on a cluster

What `model-training serve --executor kubernetes` must be allowed to do, in the namespace of its
jobs. While one of them is missing, `GET /readyz` answers 503 and the service's log names it, once
and again when that changes; it looks every 30 seconds, and every 5 while something is in the way.
`model-training doctor --executor kubernetes` names all that are missing, as whoever its kubeconfig
says, and takes the options of `serve`. Both ask the cluster about one right at a time
(SelfSubjectAccessReview), which everybody who is logged in may do (`system:basic-user`).
"""
ROLE_WORDS = """\
Exactly these rights, for a service account of the namespace `training`. It may do nothing
else: no Secrets, no nodes, no other namespaces. Kubernetes has no rights by the beginning of a
name, so it could delete other Jobs of the namespace, though the service never does: give jobs a
namespace of their own.
"""
ROLE_BINDING = """\
---
apiVersion: v1
kind: ServiceAccount
metadata: {namespace: training, name: model-training}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {namespace: training, name: model-training}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: model-training}
subjects:
- {kind: ServiceAccount, namespace: training, name: model-training}
"""
WIDE_WORDS = """\
With `--all-namespaces` these as well, in the whole cluster, which only read. To stop or delete
jobs of other namespaces the service needs the two rights to delete there as well. They are not
part of readiness: without them such a job is followed, and the log names the right when somebody
asks to stop or delete it.
"""
WIDE_BINDING = """\
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: model-training}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: model-training}
subjects:
- {kind: ServiceAccount, namespace: training, name: model-training}
"""
REVIEW_WORDS = """\
Only where the [access file](../howto/decide-with-kubernetes.md) says so, and beside the others:
`[kubernetes]` needs the first, `engine = "kubernetes"` the second. While one is missing, who comes
in that way, or is to be decided about, is answered 503, and the service's log names the right.
Tokens are of the whole cluster, so a ClusterRole has to give the first; to be decided about is of
the namespace of the service alone. Whoever may review tokens can tell whose a token is, and
nothing else.
"""
TOKENS_BINDING = """\
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: model-training-tokens}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: model-training-tokens}
subjects:
- {kind: ServiceAccount, namespace: training, name: model-training}
---
"""
DECISION_BINDING = """\
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {namespace: training, name: model-training-decisions}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: model-training-decisions}
subjects:
- {kind: ServiceAccount, namespace: training, name: model-training}
"""
MATRIX_INTRO = """\
# Who is answered what

Each way to ask each route, for every credential, under everything that a decision point may say.
The test `tests/api/test_access_matrix.py` asks a service all of it and holds it to these tables,
which are written by hand; it fails when there is a route that they do not name.

A cell is the status of the answer and, where that is an error, the end of its
[type](errors.md). A `GET` answers `HEAD` too, the same without a body. A job or a pipeline that may
not be seen is answered with the same bytes as one that is not there.
"""
GOOD_WORDS = """\
With a good JSON Web Token, API key or local token. Columns are what the decision point says:

- *all*: yes to everything;
- *read*: yes to `read`, no to everything else;
- *own* and *another's*: yes to `create`, to `list`, to pipelines, and to everything about the
  caller's own jobs; asked about such a job, and about one of somebody else;
- *nothing*: no to everything;
- *no answer*: it is away, too slow, or talks nonsense. `Retry-After` says when to try again.
"""
UNFIT_WORDS = """\
With an API key that was made without the action, whatever its holder may do. The decision point is
asked only whether the job may at least be read.
"""
BAD_WORDS = """\
Nobody is asked then, and every row above is answered the same.
"""
OPEN_WORDS = """\
The same with any credential and without one.
"""
MADE = "\n<!-- Written by scripts/docs from the code. -->\n"

# What the reader of a value accepts, by the name of its validator in settings.py.
_UNITS = {
    "_seconds": "seconds, or such as `90s`, `15m`, `2h`, `30d`",
    "_bytes": "bytes, or such as `512Mi`, `4Gi`, `2G`",
    "_path": "folder",
    "_by_path_separator": "folders; in the file an array",
    "_by_comma": "in the file an array",
}


def settings_page() -> str:
    """Every setting: meaning and reason, variable, option, unit, bounds, default."""
    hints = get_type_hints(Settings, include_extras=True)
    options = {option for option in _options_of("serve") if option}
    parts = [SETTINGS_INTRO + MADE]
    for name, field in Settings.model_fields.items():
        marks = [*_marks(hints[name]), *field.metadata]
        option = "--" + name.replace("_", "-")
        facts = [
            f"variable `{PREFIX}{name.upper()}`",
            f"option `{option}`" if option in options else None,
            next((_UNITS[mark] for mark in _validators(marks) if mark in _UNITS), None),
            _bounds(marks),
            f"default {_default(name)}",
        ]
        reason = " ".join(inspect.cleandoc(field.description or "").split()).replace("``", "`")
        words = "; ".join(fact for fact in facts if fact)
        parts.append(f"\n## {name}\n\n{reason}\n\n{words[0].upper()}{words[1:]}.\n")
    return "".join(parts)


def _marks(hint: object) -> Iterator[object]:
    yield from getattr(hint, "__metadata__", ())
    for inner in get_args(hint):
        if not isinstance(inner, str | int):
            yield from _marks(inner)


def _validators(marks: list[object]) -> list[str]:
    return [mark.func.__name__ for mark in marks if isinstance(mark, BeforeValidator)]


def _bounds(marks: list[object]) -> str | None:
    """The narrowest of all bounds: a type has some, and the setting may have closer ones."""
    flat = [inner for mark in marks for inner in getattr(mark, "metadata", [mark])]
    above = [float(str(mark.gt)) for mark in flat if isinstance(mark, Gt)]
    low = [float(str(mark.ge)) for mark in flat if isinstance(mark, Ge)]
    high = [float(str(mark.le)) for mark in flat if isinstance(mark, Le)]
    words = [f"more than {max(above):,.0f}"] if above else []
    words += [f"from {max(low):,.0f}"] if low else []
    words += [f"at most {min(high):,.0f}"] if high else []
    return ", ".join(words) or None


def _default(name: str) -> str:
    if name == "data":
        return "`$XDG_STATE_HOME/model-training` (`~/.local/state/model-training`)"
    default = Settings.model_fields[name].default
    if default is None or default == ():
        return "none"
    if isinstance(default, int) and default >= 2**10 and default % 2**10 == 0:
        power = next(p for p in (30, 20, 10) if default % 2**p == 0)
        return f"`{default >> power}{ {30: 'Gi', 20: 'Mi', 10: 'Ki'}[power] }`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def command_page() -> str:
    """Every command as it describes itself."""
    parts = [COMMAND_INTRO + MADE]
    for path, command in commands():
        name = " ".join(["model-training", *path])
        context = click.Context(
            command, info_name=name, terminal_width=WIDTH, help_option_names=["-h", "--help"]
        )
        title = "`" + " ".join(path) + "`" if path else "All"
        text = re.sub(r"[ \t]+$", "", command.get_help(context), flags=re.MULTILINE)
        parts.append(f"\n## {title}\n\n```text\n{text.strip()}\n```\n")
    return "".join(parts)


def commands() -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command with the words that call it, groups included."""
    waiting: list[tuple[tuple[str, ...], click.Command]] = [((), cli)]
    while waiting:
        path, command = waiting.pop(0)
        yield path, command
        if isinstance(command, click.Group):
            context = click.Context(command)
            names = command.list_commands(context)
            found = [((*path, name), command.get_command(context, name)) for name in names]
            waiting = [(p, c) for p, c in found if c is not None] + waiting


def _options_of(name: str) -> list[str]:
    command = dict(commands())[(name,)]
    return [text for parameter in command.params for text in parameter.opts]


def rights_page() -> str:
    """Every right on a cluster, and the objects that grant them."""
    lines = ["", "| API group | resource | verb | needed to | with `--all-namespaces` |"]
    lines.append("|---|---|---|---|---|")
    for right in RIGHTS:
        group = f"`{right.group}`" if right.group else "core"
        where = "in all namespaces" if right.widens else "in its own"
        cells = (group, f"`{right.resource}`", f"`{right.verb}`", right.why, where)
        lines.append(f"| {' | '.join(cells)} |")
    table = "\n".join(lines) + "\n"
    everywhere = [right for right in RIGHTS if right.widens]
    role = role_of("Role", "namespace: training, name: model-training", RIGHTS)
    cluster_role = role_of("ClusterRole", "name: model-training", everywhere)
    objects = f"\n## A Role\n\n{ROLE_WORDS}\n```yaml\n{role}{ROLE_BINDING}```\n"
    wide = f"\n## All namespaces\n\n{WIDE_WORDS}\n```yaml\n{cluster_role}{WIDE_BINDING}```\n"
    return RIGHTS_INTRO + MADE + table + objects + wide + _review_rights()


def _review_rights() -> str:
    """What access control needs besides."""
    lines = ["| API group | resource | verb | needed to | where |", "|---|---|---|---|---|"]
    for right in REVIEW_RIGHTS:
        where = "in the whole cluster" if right.of_cluster else "in its own namespace"
        cells = (f"`{right.group}`", f"`{right.resource}`", f"`{right.verb}`", right.why, where)
        lines.append(f"| {' | '.join(cells)} |")
    table = "\n".join(lines) + "\n"
    tokens = role_of("ClusterRole", "name: model-training-tokens", [TOKEN_REVIEWS])
    named = "namespace: training, name: model-training-decisions"
    decisions = role_of("Role", named, [ACCESS_REVIEWS])
    objects = f"{tokens}{TOKENS_BINDING}{decisions}{DECISION_BINDING}"
    return f"\n## Access control\n\n{REVIEW_WORDS}\n{table}\n```yaml\n{objects}```\n"


def role_of(kind: str, metadata: str, rights: Iterable[Right]) -> str:
    """A Role or ClusterRole, a rule for each resource."""
    verbs: dict[tuple[str, str], list[str]] = {}
    for right in rights:
        verbs.setdefault((right.group, right.resource), []).append(right.verb)
    version = "rbac.authorization.k8s.io/v1"
    head = f"apiVersion: {version}\nkind: {kind}\nmetadata: {{{metadata}}}\nrules:"
    rules = [
        f'- {{apiGroups: ["{group}"], resources: [{resource}], verbs: [{", ".join(found)}]}}'
        for (group, resource), found in verbs.items()
    ]
    return "\n".join([head, *rules]) + "\n"


def matrix_page() -> str:
    """What each route answers to whom, as the test of it expects."""
    sections = (
        ("Good credentials", GOOD_WORDS, _answers_table([(row, row.good) for row in ROWS])),
        ("A key for other actions", UNFIT_WORDS, _answers_table([(r, r.unfit) for r in ROWS])),
        ("Bad credentials", BAD_WORDS, _bad_credentials()),
        ("Whoever asks", OPEN_WORDS, _whoever_asks()),
    )
    parts = [f"\n## {title}\n\n{words}\n{table}" for title, words, table in sections]
    return MATRIX_INTRO + MADE + "".join(parts)


def _answers_table(rows: list[tuple[Row, Answers]]) -> str:
    heads = ["request", "action", "all", "read", "own", "another's", "nothing", "no answer"]
    lines = [_cells(heads), "|---" * len(heads) + "|"]
    lines += [_cells([_request(row), f"`{row.action}`", *answers]) for row, answers in rows]
    return "\n".join(lines) + "\n"


def _cells(texts: Iterable[str]) -> str:
    return f"| {' | '.join(texts)} |".replace("|  |", "| |")


def _request(row: Row) -> str:
    path = (row.path or row.route) + (f"?{row.query}" if row.query else "")
    accept = f", `Accept: {row.accept}`" if row.accept else ""
    job = {"absent": ", no such job", "running": ", it is running"}.get(row.job, "")
    return f"`{row.method} {path}`{accept}{job}"


def _bad_credentials() -> str:
    lines = ["| credential | answer | `WWW-Authenticate` |", "|---|---|---|"]
    for name, answer, challenge in BAD_CREDENTIALS:
        lines.append(_cells([name, answer, f"`{challenge}`" if challenge else ""]))
    return "\n".join(lines) + "\n"


def _whoever_asks() -> str:
    lines = ["| request | answer |", "|---|---|"]
    lines += [_cells([f"`GET {probe}`", answer]) for probe, answer in PROBES.items()]
    lines.append(_cells(["a method that the route does not have", WRONG_METHOD]))
    lines.append(_cells(["a path of no route, also with a slash too many", ELSEWHERE]))
    return "\n".join(lines) + "\n"


PAGES = {
    "settings.md": settings_page,
    "command.md": command_page,
    "rights.md": rights_page,
    "access-matrix.md": matrix_page,
}

if __name__ == "__main__":
    for page, write in PAGES.items():
        (REFERENCE / page).write_text(write())
        print(f"docs/reference/{page}")
