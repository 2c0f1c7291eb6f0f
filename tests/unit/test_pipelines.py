"""pipeline.toml and the folders it is found in."""

import asyncio
import os
import threading
import time
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_training.errors import InvalidDeclaration, PipelineExists, PipelineNotFound
from model_training.options import JobOptions
from model_training.pipelines.digests import FILES_LIMIT, SETTLED_NS, FolderDigests
from model_training.pipelines.folders import BUNDLED, BrokenFolder, FolderSource
from model_training.pipelines.pipeline_file import FolderPipeline, read_pipeline
from model_training.pipelines.toml_lines import key_lines
from tests.waiting import until

MINIMAL = 'name = "{name}"\ncommand = ["python3", "train.py"]\n'

FULL = """\
name = "digits-2"
description = "Recognise handwritten digits"
command = ["python3", "train.py"]
arguments = "flags"
requirements = "requirements/train.txt"
pass_env = ["HF_TOKEN"]

[env]
OMP_NUM_THREADS = "2"
PYTHONHASHSEED = "0"

[job]
timeout = "2h"
cpu = 2
memory = "4Gi"

[parameters.epochs]
type = "integer"
default = 20
minimum = 1
"""


@pytest.fixture
def anyio_backend():
    return "asyncio"


def write(parent, folder, text=None):
    path = parent / folder
    path.mkdir(parents=True, exist_ok=True)
    (path / "pipeline.toml").write_text(MINIMAL.format(name=folder) if text is None else text)
    return path


def faults_of(folder):
    with pytest.raises(InvalidDeclaration) as refusal:
        read_pipeline(folder)
    return [(fault.path, fault.message) for fault in refusal.value.faults]


def source(tmp_path, *parents):
    return FolderSource(parents, tmp_path / "data" / "pipelines")


def entries(tmp_path, *parents):
    """What is listed, but for the bundled pipelines."""
    listed = asyncio.run(source(tmp_path, *parents).list())
    return [entry for entry in listed if not entry.folder.is_relative_to(BUNDLED)]


def resolve(tmp_path, name, *parents):
    return asyncio.run(source(tmp_path, *parents).resolve(name))


# The file


def test_every_key_of_a_pipeline_is_read(tmp_path):
    folder = write(tmp_path, "x", FULL)
    (folder / "requirements").mkdir()
    (folder / "requirements" / "train.txt").touch()
    pipeline = read_pipeline(folder)
    assert pipeline.name == "digits-2"
    assert pipeline.command == ("python3", "train.py")
    assert pipeline.requirements == folder / "requirements" / "train.txt"
    assert pipeline.environment == {"OMP_NUM_THREADS": "2", "PYTHONHASHSEED": "0"}
    assert pipeline.pass_env == ("HF_TOKEN",)
    assert pipeline.job == JobOptions(timeout_s=7200.0, cpu=2.0, memory=4 * 2**30)
    assert pipeline.validate({}) == ({"epochs": 20}, ())
    assert pipeline.to_json() == {
        "name": "digits-2",
        "description": "Recognise handwritten digits",
        "command": ["python3", "train.py"],
        "arguments": "flags",
        "requirements": "requirements/train.txt",
        "parameters": {
            "epochs": {"type": "integer", "required": False, "default": 20, "minimum": 1}
        },
        "job": {"timeout_s": 7200.0, "cpu": 2.0, "memory": 4 * 2**30},
        "folder": str(folder),
        "image": None,
        "problems": [],
    }


def test_a_pipeline_without_parameters_takes_any_but_its_own_variables(tmp_path):
    text = MINIMAL.format(name="x") + 'pass_env = ["HF_TOKEN"]\n[env]\nthreads = "2"\n'
    pipeline = read_pipeline(write(tmp_path, "x", text))
    assert pipeline.to_json()["parameters"] is None
    assert pipeline.validate({"any": [1]}) == ({"any": [1]}, ())
    _, faults = pipeline.validate({"threads": 1, "HF_TOKEN": "x", "PATH": "/"})
    assert sorted(fault.path for fault in faults) == ["body.HF_TOKEN", "body.PATH", "body.threads"]


def test_every_fault_is_told_at_once_with_file_line_and_key(tmp_path):
    folder = write(
        tmp_path,
        "x",
        '''\
# A comment with [brackets] and "quotes
name = "Bad Name"
comand = ["python3"]
command = []
arguments = "argv"
requirements = "gone.txt"
pass_env = ["MODEL_TRAINING_TOKEN"]
description = """
name = "not a key"
[job]
"""
[env]
PATH = "/bin"
N = 2
epochs = "1"

[job]
timeout = "soon"
gpus = 1

[parameters.epochs]
type = "integer"
default = 0
minimum = 1

[parameters]
lr = { type = "number", maximun = 1 }
''',
    )
    places = [path.removeprefix(f"{folder}/pipeline.toml:") for path, _ in faults_of(folder)]
    assert places == [
        "2: name",
        "3: comand",
        "4: command",
        "5: arguments",
        "6: requirements",
        "7: pass_env",
        "13: env.PATH",
        "14: env.N",
        "15: env.epochs",
        "18: job.timeout",
        "19: job.gpus",
        "23: parameters.epochs.default",
        "27: parameters.lr.maximun",
    ]
    messages = dict(faults_of(folder))
    assert "did you mean command?" in messages[f"{folder}/pipeline.toml:3: comand"]
    assert "did you mean maximum?" in messages[f"{folder}/pipeline.toml:27: parameters.lr.maximun"]


@pytest.mark.parametrize(
    ("text", "key", "reason"),
    [
        ("", "name", "is missing"),
        ('name = "x"\n', "command", "is missing"),
        ('name = 3\ncommand = ["a"]', "name", "expects a string, got 3"),
        ('name = "api"\ncommand = ["a"]', "name", "reserved"),
        (f'name = "{"x" * 32}"\ncommand = ["a"]', "name", "at most 31"),
        ('name = "x"\ncommand = "python3 train.py"', "command", "as a list"),
        ('name = "x"\ncommand = ["a", 1]', "command", "got 1"),
        ('name = "x"\ncommand = [""]', "command", "names no program"),
        ('name = "x"\ncommand = ["a\\u0000"]', "command", "U+0000"),
        ('name = "x"\ncommand = ["a"]\nrequirements = "../r"', "requirements", "outside"),
        ('name = "x"\ncommand = ["a"]\nrequirements = "/etc/passwd"', "requirements", "outside"),
        ('name = "x"\ncommand = ["a"]\nrequirements = "."', "requirements", "no file"),
        ('name = "x"\ncommand = ["a"]\npass_env = ["A B"]', "pass_env", '"A B"'),
        ('name = "x"\ncommand = ["a"]\nenv = 3', "env", "table"),
        ('name = "x"\ncommand = ["a"]\nenv = {"A=B" = "c"}', "env.A=B", "cannot be a variable"),
        ('name = "x"\ncommand = ["a"]\nenv = {A = "1"}\npass_env = ["A"]', "pass_env", "[env]"),
        ('name = "x"\ncommand = ["a"]\njob = 1', "job", "table"),
        ('name = "x"\ncommand = ["a"]\njob = {gpu = true}', "job.gpu", "got true"),
        ('name = "x"\ncommand = ["a"]\njob = {gpu = 65}', "job.gpu", "0 to 64"),
        ('name = "x"\ncommand = ["a"]\nparameters = 1', "parameters", "table"),
        ('name = "x"\ncommand = ["a"]\ndescription = 2020-01-01', "description", "string"),
        ("name = \"x\"\ncommand" + ".a" * 4000 + " = 1", "command", "too large to show"),
    ],
)  # fmt: skip
def test_a_fault_names_its_key_and_reason(tmp_path, text, key, reason):
    found = faults_of(write(tmp_path, "x", text))
    [message] = [message for path, message in found if path.endswith(f": {key}")]
    assert reason in message
    assert len(message) < 200


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        (b'name = "x"\ncommand = [\n', 2, "at the end"),
        (b'name = "x"\nname = "y"\n', 2, "overwrite"),
        (b"\nname = \n", 2, "Invalid value"),
        (b'name = "x"\n# \xff\n', 2, "not UTF-8"),
        (b"a = " + b"[" * 5000, 1, "nested too deeply"),
        (b"a = " + b"9" * 5000, 1, "number that cannot be read"),
        (b"#" * (1024 * 1024 + 1), 1, "larger than"),
        (b"\x00", 1, ""),
    ],
)
def test_a_file_that_cannot_be_read_names_its_line(tmp_path, content, line, reason):
    folder = write(tmp_path, "x")
    (folder / "pipeline.toml").write_bytes(content)
    [(path, message)] = faults_of(folder)
    assert path == f"{folder}/pipeline.toml:{line}"
    assert reason in message


def test_a_requirements_file_behind_a_link_out_of_the_folder_is_refused(tmp_path):
    (tmp_path / "secret.txt").touch()
    folder = write(tmp_path, "x", MINIMAL.format(name="x") + 'requirements = "r.txt"\n')
    (folder / "r.txt").symlink_to(tmp_path / "secret.txt")
    [(_, message)] = faults_of(folder)
    assert "outside" in message
    (folder / "r.txt").unlink()
    (folder / "r.txt").symlink_to("r.txt")
    assert faults_of(folder)


def test_a_named_pipe_in_place_of_the_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipeline.toml")
    [(_, message)] = faults_of(tmp_path)
    assert message == "is no file"


KEYS = st.text("ab.\"'=[]{}# \\\n\tä", min_size=1, max_size=5)


def quoted(key):
    escapes = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t"}
    return '"' + "".join(escapes.get(sign, sign) for sign in key) + '"'


@settings(deadline=None)
@given(
    st.lists(st.tuples(KEYS, st.lists(KEYS, unique=True, max_size=4)), unique_by=lambda t: t[0]),
    st.lists(
        st.sampled_from(
            ["1", '"""\n[x]\na = "1"\n""""', "'''\n'a'=\n'''", "[ # ]\n 1,\n [2]\n]",
             '{ a = "}", b = [1] }', '"#=[" # x = "', "1979-05-27", '"\\""', '""'],
        ),
        min_size=1,
    ),
    st.sampled_from(["\n", "\r\n"]),
)  # fmt: skip
def test_the_line_of_each_key_is_found_in_any_file(tables, values, newline):
    lines, expected = [], {}
    for table, keys in tables:
        lines.append(f" [ {quoted(table)} ] # [comment]")
        expected.setdefault(table, len(lines))
        for key in keys:
            value = values[len(lines) % len(values)]
            expected.setdefault(f"{table}.{key}", len(lines) + 1)
            lines += f"\t{quoted(key)} = {value}".split("\n")
    text = newline.join(lines)
    tomllib.loads(text)
    assert key_lines(text) == expected


@given(st.text(max_size=60))
def test_any_valid_file_has_lines_for_its_keys(text):
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    assert bool(key_lines(text)) >= bool(values)


# The digest


def digest(folder):
    return FolderDigests().digest(folder)


def test_the_digest_follows_contents_names_and_the_executable_bit(tmp_path):
    (tmp_path / "a").mkdir()
    file = tmp_path / "a" / "train.py"
    file.write_text("one")
    seen = [digest(tmp_path)]
    assert digest(tmp_path) == seen[0]
    file.write_text("two")
    seen.append(digest(tmp_path))
    file.chmod(0o755)
    seen.append(digest(tmp_path))
    file.rename(tmp_path / "a" / "other.py")
    seen.append(digest(tmp_path))
    (tmp_path / "link").symlink_to("a")
    seen.append(digest(tmp_path))
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to("b")
    seen.append(digest(tmp_path))
    (tmp_path / "empty").touch()
    seen.append(digest(tmp_path))
    assert len(set(seen)) == len(seen)


def test_the_digest_does_not_depend_on_what_is_no_code(tmp_path):
    (tmp_path / "train.py").write_text("x")
    before = digest(tmp_path)
    for name in (".git", "__pycache__", ".venv", "node_modules"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("x")
    (tmp_path / "train.pyc").touch()
    (tmp_path / "train.py").touch()
    assert digest(tmp_path) == before


def test_equal_folders_have_equal_digests_wherever_they_are(tmp_path):
    names = ["b", "a", "c/d", "c/a", "e/f"]
    for parent, order in (("one", names), ("two", reversed(names))):
        for name in order:
            file = tmp_path / parent / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(name)
    assert digest(tmp_path / "one") == digest(tmp_path / "two")


@pytest.mark.anyio
async def test_what_was_read_before_is_told_from_what_changed_since(tmp_path):
    folder = write(tmp_path / "all", "x", MINIMAL.format(name="x") + 'requirements = "r.txt"\n')
    (folder / "r.txt").write_text("one")
    old = {"ns": (10**18, 10**18)}
    os.utime(folder / "r.txt", **old)
    # Only what has not changed for a while is kept: until then every file is read each time.
    await until(
        lambda: time.time_ns() - (folder / "r.txt").stat().st_ctime_ns > SETTLED_NS, within=4
    )
    looking = source(tmp_path, tmp_path / "all")
    first = await looking.resolve("x")
    assert await looking.resolve("x") == first
    (folder / "r.txt").write_text("two")
    os.utime(folder / "r.txt", **old)
    assert (await looking.resolve("x")).digest != first.digest
    (folder / "r.txt").unlink()
    with pytest.raises(InvalidDeclaration, match=r"no file r\.txt"):
        await looking.resolve("x")


def test_a_pipe_or_a_loop_of_links_does_not_hold_up_the_digest(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(".")
    assert digest(tmp_path) is not None


def test_a_folder_of_data_has_no_digest_but_a_warning(tmp_path):
    folder = write(tmp_path / "all", "big")
    for number in range(FILES_LIMIT):
        os.link(folder / "pipeline.toml", folder / f"{number}")
    pipeline = resolve(tmp_path, "big", tmp_path / "all")
    assert pipeline.digest is None
    assert str(FILES_LIMIT) in pipeline.warnings[0]


# Folders


def test_a_parent_holds_pipelines_and_may_be_one(tmp_path):
    parent = write(tmp_path, "self")
    write(parent, "one")
    write(parent, "two")
    (parent / "three").mkdir()
    assert [entry.name for entry in entries(tmp_path, parent)] == ["one", "self", "two"]
    pipeline = resolve(tmp_path, "one", parent)
    assert pipeline.folder == parent / "one"
    assert pipeline.digest == digest(parent / "one")


def test_an_edit_counts_at_the_next_call(tmp_path):
    write(tmp_path / "all", "x")
    looking = source(tmp_path, tmp_path / "all")
    first = asyncio.run(looking.resolve("x"))
    file = tmp_path / "all" / "x" / "pipeline.toml"
    file.write_text(file.read_text().replace("train.py", "learn.py"))
    second = asyncio.run(looking.resolve("x"))
    assert second.command == ("python3", "learn.py")
    assert second.digest != first.digest
    file.unlink()
    with pytest.raises(PipelineNotFound):
        asyncio.run(looking.resolve("x"))


class HeldUp(FolderSource):
    """Its looks end once they may; ``looks`` counts them."""

    def __init__(self, *places):
        super().__init__(*places)
        self.looks = 0
        self.may_end = threading.Event()

    def _resolve(self, name):
        try:
            return super()._resolve(name)
        finally:
            self.looks += 1
            assert self.may_end.wait(10)


@pytest.mark.anyio
async def test_who_asks_during_a_look_shares_the_next_and_misses_no_edit(tmp_path):
    write(tmp_path / "all", "x")
    looking = HeldUp([tmp_path / "all"], tmp_path / "data" / "pipelines")
    first = asyncio.create_task(looking.resolve("x"))
    await until(lambda: looking.looks)
    file = tmp_path / "all" / "x" / "pipeline.toml"
    file.write_text(file.read_text().replace("train.py", "learn.py"))
    later = [asyncio.create_task(looking.resolve("x")) for _ in range(16)]
    other = asyncio.create_task(looking.resolve("unknown"))
    await until(lambda: looking.looks == 2, what="the look for another name does not wait")
    later.pop().cancel()
    looking.may_end.set()
    assert (await first).command == ("python3", "train.py")
    assert {(await one).command for one in later} == {("python3", "learn.py")}
    with pytest.raises(PipelineNotFound):
        await other
    assert looking.looks == 3
    assert (looking._looking, looking._about_to_look) == ({}, {})


@pytest.mark.anyio
async def test_after_a_look_that_found_nothing_the_next_one_may_find_it(tmp_path):
    (tmp_path / "all").mkdir()
    looking = HeldUp([tmp_path / "all"], tmp_path / "data" / "pipelines")
    first = asyncio.create_task(looking.resolve("x"))
    await until(lambda: looking.looks)
    write(tmp_path / "all", "x")
    second = asyncio.create_task(looking.resolve("x"))
    looking.may_end.set()
    with pytest.raises(PipelineNotFound):
        await first
    assert (await second).name == "x"


def test_an_unknown_pipeline_says_where_was_looked_and_what_is_like_it(tmp_path):
    parent = tmp_path / "all"
    write(parent, "digits-big")
    with pytest.raises(PipelineNotFound) as refusal:
        resolve(tmp_path, "digits-bg", parent)
    assert refusal.value.looked == (
        str(parent), str(tmp_path / "data" / "pipelines"), str(BUNDLED),
    )  # fmt: skip
    assert refusal.value.nearest[0] == "digits-big"


def test_a_broken_pipeline_is_reported_and_takes_no_other_down(tmp_path):
    parent = tmp_path / "all"
    write(parent, "good")
    write(parent, "typo", 'name = "typo"\ncomand = ["x"]\n')
    write(parent, "syntax", "name = \n")
    (parent / "locked").mkdir()
    (parent / "locked" / "pipeline.toml").symlink_to("nowhere")
    (parent / "\udcff").mkdir()
    write(parent, "\udcff", MINIMAL.format(name="bytes"))
    found = entries(tmp_path, parent)
    assert [entry.name for entry in found if isinstance(entry, FolderPipeline)] == ["good"]
    broken = [entry for entry in found if isinstance(entry, BrokenFolder)]
    assert {entry.name for entry in broken} == {"typo", "bytes", None}
    for entry in broken:
        assert entry.to_json().keys() == found[-1].to_json().keys()
        assert str(entry.to_json()).encode()
        assert all("pipeline.toml:" in fault.path for fault in entry.problems)
    assert resolve(tmp_path, "good", parent).name == "good"
    for name, reason in (("typo", "did you mean command"), ("syntax", "Invalid value")):
        with pytest.raises(InvalidDeclaration, match=reason):
            resolve(tmp_path, name, parent)


def test_a_parent_that_is_not_there_is_a_problem_of_its_own(tmp_path):
    write(tmp_path / "all", "good")
    missing = tmp_path / "missing"
    found = entries(tmp_path, missing, tmp_path / "all")
    assert [(entry.name, len(entry.problems)) for entry in found] == [(None, 1), ("good", 0)]
    assert found[0].problems[0].path == str(missing)


def test_of_two_of_one_name_the_first_is_used_and_both_are_reported(tmp_path):
    write(tmp_path / "a", "x")
    write(tmp_path / "b", "x")
    found = entries(tmp_path, tmp_path / "b", tmp_path / "a")
    assert [(type(entry), entry.folder) for entry in found] == [
        (BrokenFolder, tmp_path / "a" / "x"),
        (FolderPipeline, tmp_path / "b" / "x"),
    ]
    for entry, other in zip(found, reversed(found), strict=True):
        [problem] = entry.problems
        assert problem.path == f"{entry.folder}/pipeline.toml:1: name"
        assert str(other.folder) in problem.message
    assert resolve(tmp_path, "x", tmp_path / "b", tmp_path / "a").folder == tmp_path / "b" / "x"


def test_one_folder_found_twice_is_no_problem(tmp_path):
    folder = write(tmp_path / "a", "x")
    source(tmp_path).register(folder)
    [entry] = entries(tmp_path, tmp_path / "a", folder, tmp_path / "a")
    assert entry.problems == ()


def test_the_bundled_pipelines_are_found_last(tmp_path):
    bundled = asyncio.run(source(tmp_path).list())
    assert all(isinstance(entry, FolderPipeline) for entry in bundled)
    write(tmp_path / "all", "digits")
    assert resolve(tmp_path, "digits", tmp_path / "all").folder == tmp_path / "all" / "digits"


# Registered for good


def test_a_registered_pipeline_is_found_until_it_is_removed(tmp_path):
    folder = write(tmp_path, "x")
    known = source(tmp_path)
    assert known.register(folder).name == "x"
    assert known.register(folder).folder == folder
    assert (tmp_path / "data" / "pipelines" / "x").read_text() == f"{folder}\n"
    assert [file.name for file in (tmp_path / "data" / "pipelines").iterdir()] == ["x"]
    assert resolve(tmp_path, "x").folder == folder
    known.unregister("x")
    with pytest.raises(PipelineNotFound):
        resolve(tmp_path, "x")
    assert (folder / "pipeline.toml").exists()


def test_a_relative_folder_is_registered_by_its_absolute_path(tmp_path, monkeypatch):
    write(tmp_path, "x")
    monkeypatch.chdir(tmp_path)
    assert source(tmp_path).register(Path("x")).folder == tmp_path / "x"
    assert resolve(tmp_path, "x").folder == tmp_path / "x"


def test_a_name_registered_from_another_folder_is_not_taken_over(tmp_path):
    first = write(tmp_path / "a", "x")
    second = write(tmp_path / "b", "x")
    source(tmp_path).register(first)
    with pytest.raises(PipelineExists, match="pipeline remove x"):
        source(tmp_path).register(second)
    assert resolve(tmp_path, "x").folder == first


def test_a_broken_pipeline_is_not_registered(tmp_path):
    folder = write(tmp_path, "x", "name = 3\n")
    with pytest.raises(InvalidDeclaration):
        source(tmp_path).register(folder)
    with pytest.raises(InvalidDeclaration, match="cannot be read"):
        source(tmp_path).register(tmp_path)
    assert not (tmp_path / "data" / "pipelines").exists()


@pytest.mark.parametrize("name", ["../token", "", "y", ".new-x", "x/../x"])
def test_only_what_is_registered_can_be_removed(tmp_path, name):
    source(tmp_path).register(write(tmp_path, "x"))
    (tmp_path / "data" / "token").write_text("secret")
    with pytest.raises(PipelineNotFound):
        source(tmp_path).unregister(name)
    assert (tmp_path / "data" / "token").exists()
    assert (tmp_path / "data" / "pipelines" / "x").exists()


def test_a_registered_folder_that_is_gone_or_renamed_says_the_way_out(tmp_path):
    folder = write(tmp_path, "x")
    other = write(tmp_path, "y")
    for path in (folder, other):
        source(tmp_path).register(path)
    (folder / "pipeline.toml").unlink()
    (other / "pipeline.toml").write_text(MINIMAL.format(name="z"))
    found = entries(tmp_path)
    assert [(type(entry), entry.name) for entry in found] == [
        (BrokenFolder, "x"), (BrokenFolder, "y"),
    ]  # fmt: skip
    for entry in found:
        assert f"pipeline remove {entry.name}" in entry.problems[0].message


def test_foreign_files_among_the_registrations_are_passed_over(tmp_path):
    source(tmp_path).register(write(tmp_path, "x"))
    registered = tmp_path / "data" / "pipelines"
    (registered / "README.md").write_text("hello")
    (registered / "folder").mkdir()
    (registered / "noise").write_bytes(b"\xff\0\n")
    (registered / "nul").write_bytes(b"/tmp/\0x\n")
    found = entries(tmp_path)
    assert [(type(entry), entry.name) for entry in found] == [
        (BrokenFolder, "noise"), (BrokenFolder, "nul"), (FolderPipeline, "x"),
    ]  # fmt: skip
