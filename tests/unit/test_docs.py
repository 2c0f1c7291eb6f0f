"""The reference pages and the code say the same: what only one of them knows fails here."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import cast, get_args

import pytest

import model_training
from model_training import AsyncClient, Client, errors, jobs
from model_training.api import frames, problems, streaming
from model_training.api.metrics import Metrics
from model_training.api.openapi import Operation, describe
from model_training.api.operations import OPERATIONS
from model_training.api.queries import _STATES as STATES_AND_GROUPS
from model_training.client import events
from model_training.client.jobs import Job
from model_training.client.results import JobFilters, JobOptions, LogOptions
from model_training.errors import ModelTrainingError
from model_training.folders import DataFolder, JobFolder
from model_training.logs import layout
from model_training.options import OPTION_NAMES
from model_training.pipelines.parameter_tables import _MEMBERS as PARAMETER_KEYS
from model_training.pipelines.pipeline_file import _KEYS as PIPELINE_KEYS
from scripts.reference_pages import PAGES
from tests.cluster.status_cases import CASES, EVICTED, LOST_NODE
from tests.parity.differences import DIFFERENCES

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
LIMIT = re.compile(r"^([A-Z][A-Z_]*_(?:LIMIT|RANGE)(?:_S)?)\b.*=", re.MULTILINE)


def page(name: str) -> str:
    return (REFERENCE / name).read_text()


def section(text: str, title: str) -> str:
    """What stands below a heading, up to the next of its level or above."""
    level = title.partition(" ")[0]
    after = text.split(f"\n{title}\n", 1)[1]
    return re.split(rf"^#{{1,{len(level)}}} ", after, maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str, heading: str) -> list[list[str]]:
    """The cells of the tables whose heading row begins with this word."""
    found: list[list[str]] = []
    inside = False
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|"):
            inside = False
        elif cells[0] == heading:
            inside = True
        elif inside and not set(line) <= set("|- "):
            found.append(cells)
    return found


def words(cells: Iterable[str]) -> list[str]:
    """What stands in backquotes."""
    return [word for cell in cells for word in re.findall(r"`([^`]+)`", cell)]


# Pages that are written from the code


@pytest.mark.parametrize("name", PAGES)
def test_a_page_made_from_the_code_is_what_the_code_makes(name: str):
    assert page(name) == PAGES[name](), "run scripts/docs"


# HTTP


def title_of(operation: Operation) -> str:
    return f"## {operation.method} {operation.path.replace(':path}', '}')}"


def test_every_route_has_a_section_and_every_section_a_route():
    documented = re.findall(r"^## (?:GET|POST|DELETE|PUT|PATCH) .*$", page("http.md"), re.MULTILINE)
    assert sorted(documented) == sorted(map(title_of, OPERATIONS))


@pytest.mark.parametrize("operation", OPERATIONS, ids=title_of)
def test_the_options_and_statuses_of_a_route_are_those_of_its_section(operation: Operation):
    text = section(page("http.md"), title_of(operation))
    named = words(cells[0] for cells in rows(text, "option"))
    assert sorted(named) == sorted(o.name for o in operation.options if o.place != "path")
    headers = [cells[0] for cells in rows(text, "option") if cells[0].endswith("(header)")]
    assert len(headers) == sum(option.place == "header" for option in operation.options)
    listed = "".join(re.findall(r"^- .*(?:\n  .*)*", text, re.MULTILINE))
    statuses = {answer.status for answer in operation.answers} | set(operation.problems)
    assert set(map(int, re.findall(r"(?<!SHA-)\b[2-5]\d\d\b", listed))) == statuses


def test_the_headers_of_answers_are_those_of_the_page():
    headers = cast("dict[str, dict[str, object]]", describe(OPERATIONS, "0")["components"])
    named = set(words([page("http.md")]))
    assert named >= set(headers["headers"])
    ours = {name for name in named if name.startswith("Model-Training-")}
    assert ours <= set(headers["headers"])


def test_the_counts_for_prometheus_are_those_of_the_page():
    metrics = Metrics()
    metrics.count({"type": "http", "method": "GET"}, 200)
    counted = {s.name for m in metrics._registry.collect() for s in m.samples}
    counted |= {family.name for family in metrics._registry.collect()}
    named = set(re.findall(r"`(model_training_\w+)`", page("http.md")))
    made = {name for name in counted if not name.endswith(("_created", "http_requests"))}
    assert named == made


def test_the_events_of_a_log_are_those_of_the_table():
    sent = set(re.findall(r'_event\("(\w+)"', inspect.getsource(frames)))
    for last in (streaming.FollowedEvents.farewell, streaming.FollowedEvents.expulsion):
        sent |= set(re.findall(r"event: (\w+)", last.decode()))
    assert {word for cells in rows(page("http.md"), "event") for word in words(cells[:1])} == sent


def test_the_fields_of_a_job_are_those_of_the_table():
    named = words(cells[0] for cells in rows(page("http.md"), "field"))
    assert named == list(jobs._JOB_FIELDS)


# Errors


def classes() -> list[type[ModelTrainingError]]:
    kinds = [value for value in vars(errors).values() if isinstance(value, type)]
    return [k for k in kinds if issubclass(k, ModelTrainingError) and k is not ModelTrainingError]


def answered() -> set[tuple[str, str, int]]:
    """Class, type and status of every problem that the service can answer."""
    found: set[tuple[str, str, int]] = set()
    for kind in classes():
        for base in kind.__mro__:
            if base in problems.STATUS:
                found.add((kind.__name__, kind.kind(), problems.STATUS[base]))
                break
    of_classes = {kind for _, kind, _ in found}
    plain = [value for value in vars(problems).values() if isinstance(value, problems.Problem)]
    plain.append(problems.plain_problem(405, ""))
    return found | {("", each.kind, each.status) for each in plain if each.kind not in of_classes}


def test_the_errors_answered_are_those_of_the_table():
    table = [cells for cells in rows(page("errors.md"), "class") if len(cells) == 4]
    named = {("".join(words(c[:1])), *words(c[1:2]), int(c[2])) for c in table}
    assert named == answered()
    assert all(cells[3] for cells in table)


def test_the_errors_never_answered_are_those_of_the_other_table():
    named = {words(cells)[0] for cells in rows(page("errors.md"), "class") if len(cells) == 3}
    assert named == {kind.__name__ for kind in classes()} - {name for name, _, _ in answered()}


# States


def test_the_states_and_groups_are_those_of_the_table():
    table = {words(cells[:1])[0]: cells[1] for cells in rows(page("states.md"), "state")}
    assert table == {str(state): state.group for state in jobs.JobState}
    assert set(STATES_AND_GROUPS) == set(table) | set(table.values())


def test_the_reasons_are_those_of_the_table_each_with_what_to_do():
    table = rows(page("states.md"), "reason")
    assert sorted(words(cells[0] for cells in table)) == sorted(map(str, jobs.Reason))
    assert all(all(cells) and len(cells) == 4 for cells in table)
    allowed = {*map(str, jobs.JobState), "any"}
    assert {cells[1] for cells in table} <= allowed


def test_the_reasons_on_a_cluster_are_those_that_its_tests_have_seen():
    table = {words(c[:1])[0]: c[1] for c in rows(page("states.md"), "reason on a cluster")}
    seen: dict[str, set[str]] = {"RemovedOutside": {"failed"}}
    for case in (EVICTED, LOST_NODE, *CASES.values()):
        if case.reason:
            seen.setdefault(case.reason, set()).add(case.state)
    assert set(table) == set(seen)
    for reason, states in table.items():
        assert states == "any" or set(states.split(" or ")) == seen[reason], reason


# Files


def tree(text: str) -> set[str]:
    """The paths drawn in the page's tree."""
    drawn = re.search(r"```text\n(.*?)```", text, re.DOTALL)
    assert drawn
    found: set[str] = set()
    folder = ""
    for line in drawn[1].splitlines():
        name = line.split()[0].rstrip("/")
        if line.startswith(" "):
            name = f"{folder}/{name}"
        else:
            folder = name
        found.add(name)
    return found


def test_the_names_in_the_data_folder_are_those_of_the_page():
    data, job = DataFolder(Path("/")), JobFolder(Path("/jobs/SHARD/NAME"))
    log = job.log(1)
    known = {
        *(getattr(data, name) for name in properties(DataFolder)),
        *(getattr(job, name) for name in properties(JobFolder)),
        layout.gaps_path(log),
        job.log_source(1),
        layout.generation_path(log),
        *(log / f"OFFSET{path(log, 0).suffix}" for path in (layout.log_path, layout.index_path)),
    }
    names = {str(path).lstrip("/") for path in known}
    drawn = tree(page("files.md"))
    folders = {name for name in names if any(other.startswith(f"{name}/") for other in drawn)}
    assert names - folders <= drawn
    # What the code has no property for is a NAME or a DIGEST in a folder that it has one for.
    inner = {name for name in drawn - names if name.rpartition("/")[0] in folders}
    assert drawn - names - inner == {"jobs/SHARD/NAME"} - names
    assert all(name.rpartition("/")[2].partition(".")[0].isupper() for name in inner)


def properties(kind: type) -> list[str]:
    return [
        name for name, value in vars(kind).items() if isinstance(value, property) and name != "name"
    ]


# Limits


UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def numbers(cell: str) -> list[float]:
    """``64 KiB`` is 65,536, ``1 MiB to 64 TiB`` two numbers, ``1 to 30 seconds`` too."""
    found = re.findall(r"([\d,]+)(?: (KiB|MiB|GiB|TiB))?", cell)
    return [float(number.replace(",", "")) * UNITS.get(unit, 1) for number, unit in found]


def constant(path: str) -> object:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(f"model_training.{module}"), name)


def test_the_limits_are_those_of_the_code():
    for cells in rows(page("limits.md"), "limit"):
        for path in words(cells[-1:]):
            value = constant(path)
            expected = list(value) if isinstance(value, tuple) else [value]
            assert numbers(cells[0]) == expected, path


def test_every_limit_of_the_code_is_in_the_page():
    named = set(words(cells[-1] for cells in rows(page("limits.md"), "limit")))
    found: set[str] = set()
    for module in pkgutil.walk_packages(model_training.__path__, "model_training."):
        spec = module.module_finder.find_spec(module.name, None)
        assert spec
        assert spec.origin
        source = Path(spec.origin).read_text()
        for name in re.findall(
            r"^([A-Z][A-Z_]*_(?:LIMIT|RANGE)(?:_S)?)\b.*=", source, re.MULTILINE
        ):
            found.add(f"{module.name.removeprefix('model_training.')}.{name}")
    assert found - named == set()


# pipeline.toml


def test_the_keys_of_a_pipeline_are_those_of_the_tables():
    text = page("pipeline-toml.md")
    top, job = text.partition("## [job]")[::2]
    job, parameters = job.partition("## [parameters.NAME]")[::2]
    assert words(cells[0] for cells in rows(top, "key")) == list(PIPELINE_KEYS)
    assert words(cells[0] for cells in rows(job, "key")) == list(OPTION_NAMES)
    named = words(cells[0] for cells in rows(parameters, "key"))
    assert sorted(named) == sorted(PARAMETER_KEYS)


# The client

# What the page calls the named arguments of these.
OPTIONS_SAID = {
    "create": "options", "plan": "options", "list": "filters",
    "logs": "part", "follow": "part", "events": "part",
}  # fmt: skip


def public(kind: type) -> set[str]:
    return {name for name, value in vars(kind).items() if callable(value) and name[0] != "_"}


def test_the_methods_of_the_client_are_those_of_the_table():
    text = page("python.md")
    calls = words(cells[0] for cells in rows(text, "method of `Client`"))
    for call in calls:
        name, _, arguments = call.rstrip(")").partition("(")
        signature = inspect.signature(getattr(Client, name))
        taken = [
            f"**{OPTIONS_SAID[name]}" if parameter.kind is parameter.VAR_KEYWORD else given
            for given, parameter in signature.parameters.items()
            if given != "self"
        ]
        assert arguments == ", ".join(taken)
    assert {call.partition("(")[0] for call in calls} == public(Client) == public(AsyncClient)
    said = re.search(r"A `Job` has (.*?)without the\s+name", text, re.DOTALL)
    assert said
    assert set(words([said[1]])) - {"name", "record"} == public(Job)


def test_the_options_of_the_client_are_those_of_the_table():
    [cells] = rows(page("python.md"), "options of `create`")
    for cell, kind in zip(cells, (JobOptions, JobFilters, LogOptions), strict=True):
        assert words([cell]) == list(kind.__annotations__)


def test_the_events_of_the_client_are_those_of_the_table():
    listed = rows(section(page("python.md"), "## Events"), "event")
    table = {words(cells[:1])[0]: words(cells[1:]) for cells in listed}
    kinds = get_args(events.LogEvent)
    assert table == {kind.__name__: [f.name for f in fields(kind)] for kind in kinds}


# One machine and a cluster


def test_the_differences_between_executors_are_those_of_the_table():
    table = rows(page("differences.md"), "difference")
    told = {cells[0]: cells[3] for cells in table}
    assert told == {difference.name: difference.reason for difference in DIFFERENCES}
    assert len(table) <= 10
