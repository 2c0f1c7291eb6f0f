"""The command without a server: what reaches a terminal, how parameters read, how it ends."""

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_training import errors
from model_training.cli import exits
from model_training.cli.parameters import read_file, split_assignments, typed
from model_training.cli.terminal import TerminalFilter, inert

COMMANDS = [
    "serve", "demo", "create", "run", "list", "status", "logs", "outputs", "wait", "stop",
    "delete", "pipeline", "doctor", "version",
]  # fmt: skip


def ran(
    *arguments: str, data: Path, stdin: str = "", **more: str
) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "MODEL_TRAINING_DATA": str(data), **more}
    return subprocess.run(
        [sys.executable, "-m", "model_training", *arguments],
        input=stdin, capture_output=True, text=True, env=environment, timeout=60, check=False,
    )  # fmt: skip


def shown(data: bytes, cuts: list[int] | None = None) -> bytes:
    terminal = TerminalFilter()
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts or []), len(data)]
    pieces = [data[a:b] for a, b in pairwise(edges)]
    return b"".join(terminal.feed(piece) for piece in pieces) + terminal.end()


texts = st.lists(
    st.sampled_from(
        [b"\x1b", b"[", b"]0;", b"31", b";", b"m", b"H", b"\x07", b"\r", b"\xc2\x9b", b"x", b"\xe2"]
    )
).map(b"".join)


@given(texts, st.lists(st.integers(0, 1000)))
def test_a_terminal_is_shown_the_same_however_the_log_is_cut(data: bytes, cuts: list[int]):
    assert shown(data, cuts) == shown(data)


@given(st.one_of(texts, st.binary()))
def test_no_sequence_but_a_colour_reaches_a_terminal(data: bytes):
    text = shown(data).decode()
    rest = "".join(
        part if not at else part.partition("m")[2] for at, part in enumerate(text.split("\x1b["))
    )
    assert not set(rest) & {
        chr(code) for code in [*range(8), 11, 12, *range(14, 32), *range(127, 160)]
    }


def test_colours_and_progress_bars_pass_to_a_terminal():
    plain = b"\x1b[1;31mred\x1b[0m 10%\r20%\b\b\t\n" + "é 日本".encode()
    assert shown(plain) == plain


def test_a_colour_that_is_cut_in_the_middle_passes_whole():
    data = b"a\x1b[1;31mred\x1b[0m"
    assert {shown(data, [cut]) for cut in range(len(data))} == {data}


def test_what_would_command_a_terminal_becomes_visible():
    assert shown(b"\x1b]0;title\x07\x1b[2J") == "␛]0;title␇␛[2J".encode()


def test_words_of_a_job_stay_on_their_line():
    assert inert("a\rb\x1b[31mc\td\n") == "a␍b␛[31mc␉d␊"


def test_a_value_is_what_its_declaration_says():
    declared = {
        "epochs": {"type": "integer"}, "rate": {"type": "number"}, "name": {"type": "string"},
        "deep": {"type": "boolean"}, "layers": {"type": "array"}, "more": {"type": "object"},
    }  # fmt: skip
    given_ = split_assignments(
        ("epochs=3", "rate=.5", "name=3", "deep=true", "layers=[1, 2]", 'more={"a": 1}')
    )
    assert typed(given_, declared) == {
        "epochs": 3, "rate": 0.5, "name": "3", "deep": True, "layers": [1, 2], "more": {"a": 1},
    }  # fmt: skip


def test_a_value_without_a_declaration_is_json_or_else_text():
    given_ = split_assignments(("a=1", "b=0.1", "c=true", "d=[1]", "e=sgd", "f=NaN", "g=", "h=x=y"))
    assert typed(given_, None) == {
        "a": 1, "b": 0.1, "c": True, "d": [1], "e": "sgd", "f": "NaN", "g": "", "h": "x=y",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "text"),
    [("integer", "2.0"), ("integer", "1_0"), ("integer", "٣"), ("number", "nan"),
     ("boolean", "True"), ("array", "{}"), ("object", "x")],
)  # fmt: skip
def test_values_that_do_not_fit_are_all_named(kind: str, text: str):
    with pytest.raises(errors.InvalidRequest, match=rf"(?s)-p a: .* no {kind}.*-p b: "):
        typed({"a": text, "b": text}, {"a": {"type": kind}, "b": {"type": kind}})


def test_parameters_are_read_from_three_kinds_of_file(tmp_path: Path):
    for suffix, text in {
        ".json": '{"a": 1, "b": [0.5]}', ".toml": "a = 1\nb = [0.5]", ".yaml": "a: 1\nb: [0.5]",
    }.items():  # fmt: skip
        file = tmp_path / f"params{suffix}"
        file.write_text(text)
        assert read_file(str(file)) == {"a": 1, "b": [0.5]}


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [("p.json", '{"a": 1, "a": 2}', "twice"), ("p.json", "[]", "names and values"),
     ("p.toml", "a = ", "cannot be read"), ("p.yaml", "a: [", "cannot be read"),
     ("p.ini", "", "suffix")],
)  # fmt: skip
def test_a_file_that_does_not_hold_parameters_is_refused(
    tmp_path: Path, name: str, text: str, why: str
):
    (tmp_path / name).write_text(text)
    with pytest.raises(click.UsageError, match=why):
        read_file(str(tmp_path / name))


@pytest.mark.parametrize("text", ["epochs", "=3"])
def test_a_parameter_without_name_or_value_is_wrong_usage(text: str):
    with pytest.raises(click.UsageError, match="name=value"):
        split_assignments((text,))


@pytest.mark.parametrize(
    ("state", "exit_code", "expected"),
    [("succeeded", 0, 0), ("failed", 1, 1), ("failed", 125, 125), ("failed", 137, 100),
     ("failed", None, 100), ("failed", 0, 100), ("stopped", 143, 103), ("deleted", None, 103)],
)  # fmt: skip
def test_the_end_of_a_job_becomes_an_exit_code(state: str, exit_code: int | None, expected: int):
    assert exits.of_job(state, exit_code) == expected


def test_every_exit_code_is_in_the_help(tmp_path: Path):
    helped = ran("--help", data=tmp_path)
    codes = {value for value in vars(exits).values() if isinstance(value, int)}
    listed = {
        int(word)
        for line in helped.stdout.splitlines()
        for word in line.split()[:1]
        if word.isdigit()
    }
    assert codes - {exits.HIGHEST_OF_A_JOB} <= listed


def test_help_lists_every_command_and_each_has_its_own(tmp_path: Path):
    helped = ran("--help", data=tmp_path)
    assert all(f"\n  {command} " in helped.stdout for command in COMMANDS)
    for command in COMMANDS:
        assert ran(command, "--help", data=tmp_path).returncode == 0


def test_help_imports_neither_the_http_client_nor_tables(tmp_path: Path):
    script = (
        "import sys\nfrom model_training.cli.main import run\nrun(['--help'])\n"
        "print([m for m in ('httpx2', 'rich', 'yaml', 'asyncio', 'fastapi') if m in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert found.stdout.splitlines()[-1] == "[]"


def test_an_unknown_command_is_wrong_usage(tmp_path: Path):
    assert ran("trian", data=tmp_path).returncode == 2


def test_without_a_server_the_way_out_is_named(tmp_path: Path):
    (tmp_path / "server.json").write_text('{"url": "http://127.0.0.1:1", "pid": 1}')
    result = ran("list", data=tmp_path)
    assert (result.returncode, result.stdout) == (5, "")
    assert "could not list jobs" in result.stderr
    assert "model-training serve" in result.stderr


def test_an_error_found_here_is_a_problem_document_too(tmp_path: Path):
    result = ran("pipeline", "remove", "none", "--json", data=tmp_path)
    assert json.loads(result.stderr)["title"] == "PipelineNotFound"


def test_an_address_that_is_none_is_refused_with_an_example(tmp_path: Path):
    result = ran("list", data=tmp_path, MODEL_TRAINING_URL="localhost:8642")
    assert result.returncode == 1
    assert "http://127.0.0.1:8642" in result.stderr


def test_version_is_one_line_or_json(tmp_path: Path):
    assert ran("version", data=tmp_path).stdout == "model-training 0.1.0\n"
    assert json.loads(ran("version", "--json", data=tmp_path).stdout)["version"] == "0.1.0"


def test_a_pipeline_is_added_for_good_and_removed(tmp_path: Path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "pipeline.toml").write_text('name = "mine"\ncommand = ["true"]\n')
    data = tmp_path / "data"
    assert ran("pipeline", "add", str(folder), data=data).stdout == "mine\n"
    assert ran("pipeline", "add", str(folder), data=data).returncode == 0
    assert ran("pipeline", "remove", "mine", data=data).stdout == "mine\n"
    assert ran("pipeline", "remove", "mine", data=data).returncode == 3


def test_a_broken_pipeline_is_told_by_file_line_and_key(tmp_path: Path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "pipeline.toml").write_text('name = "mine"\ncommand = "true"\n')
    result = ran("pipeline", "add", str(folder), data=tmp_path / "data")
    assert result.returncode == 6
    assert "pipeline.toml:2: command" in result.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="affinity is Linux's")
def test_the_doctor_counts_the_cpus_that_this_process_may_use(tmp_path: Path):
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        found = ran("doctor", "--json", data=tmp_path)
    finally:
        os.sched_setaffinity(0, before)
    cpus = next(each["found"] for each in json.loads(found.stdout) if each["what"] == "CPUs")
    assert cpus == "1; without GPUs, 1 slot(s) by default"


def test_the_doctor_names_each_thing_and_fails_only_for_what_is_broken(tmp_path: Path):
    healthy = ran("doctor", "--json", data=tmp_path)
    findings = {each["what"]: each["level"] for each in json.loads(healthy.stdout)}
    assert healthy.returncode == 0
    assert {"data folder", "token", "server", "uv", "cgroup v2", "GPUs", "CPUs", "boot id"} <= set(
        findings
    )
    assert findings["server"] == "warn"
    (tmp_path / "token").write_text("secret")
    (tmp_path / "token").chmod(0o644)
    broken = ran("doctor", data=tmp_path)
    assert broken.returncode == 1
    assert f"chmod 600 {tmp_path}/token" in broken.stdout
