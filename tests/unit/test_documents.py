"""What any document says of commands, variables, pipelines and other documents is so."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from model_training.pipelines.pipeline_file import read_pipeline
from model_training.settings import Settings
from scripts.reference_pages import commands

ROOT = Path(__file__).parents[2]
LISTED = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
    cwd=ROOT, capture_output=True, text=True, check=False,
).stdout.split()  # fmt: skip
TEXTS = {name: (ROOT / name).read_text() for name in LISTED if (ROOT / name).exists()}
CODE = "\n".join(
    file.read_text()
    for folder in ("src", "testbed", "tests/cluster")
    for file in (ROOT / folder).rglob("*.py")
)
FENCES = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
SHELL = re.compile(r"^```(?:console|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", [name for name, text in TEXTS.items() if "\n```toml" in text])
def test_every_pipeline_in_a_document_is_valid(name: str, tmp_path: Path):
    (tmp_path / "requirements.txt").touch()
    shown = re.findall(r"^```toml.*?\n(.*?)^```$", TEXTS[name], re.MULTILINE | re.DOTALL)
    for text in (each for each in shown if each.startswith("name =")):
        (tmp_path / "pipeline.toml").write_text(text)
        assert read_pipeline(tmp_path).problems == ()


@pytest.mark.parametrize("name", TEXTS)
def test_no_document_has_marks_of_a_merge(name: str):
    assert not re.search(r"^(<{7}|={7}$|>{7})", TEXTS[name], re.MULTILINE)


@pytest.mark.parametrize("name", TEXTS)
def test_every_command_in_a_document_exists_with_its_options(name: str):
    known = dict(commands())
    lines = [
        line
        for block in re.findall(
            r"^```(?:console|sh)\n(.*?)^```$", TEXTS[name], re.MULTILINE | re.DOTALL
        )
        for line in block.splitlines()
    ]
    for line in lines:
        match = re.search(r"(?:^|[ (/])model-training ([a-z][^|;&)]*)", line.partition("  #")[0])
        if match is None or line.startswith(("stop it", "see it", "follow it", "what it", "wait")):
            continue
        given = shlex.split(match[1])
        path = next((p for n in (3, 2) if (p := tuple(given[:n])) in known), (given[0],))
        assert path in known, line
        options = {o for p in known[path].params for o in (*p.opts, *p.secondary_opts)}
        used = {w.partition("=")[0] for w in given if re.match(r"--?[a-z]", w)}
        assert used <= options | {"--help", "-h"}, line


@pytest.mark.parametrize("name", TEXTS)
def test_every_variable_in_a_document_is_one_of_the_code(name: str):
    settings = {f"MODEL_TRAINING_{setting.upper()}" for setting in Settings.model_fields}
    named = set(re.findall(r"MODEL_TRAINING_[A-Z_]*[A-Z]", TEXTS[name]))
    assert {v for v in named - settings if v not in CODE} <= {"MODEL_TRAINING_NAME"}


@pytest.mark.parametrize("name", TEXTS)
def test_every_relative_link_of_a_document_leads_somewhere(name: str):
    text = FENCES.sub("", TEXTS[name])
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / name).parent / path if path else ROOT / name
        assert file.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", FENCES.sub("", file.read_text()), re.MULTILINE)
            assert anchor in {slug(title) for title in titles}, target


def slug(title: str) -> str:
    """As the usual viewers make the anchor of a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def test_every_page_is_reached_by_a_link():
    linked = {
        ((ROOT / name).parent / target.partition("#")[0]).resolve()
        for name, text in TEXTS.items()
        for target in re.findall(r"\]\(([^)\s:]+)\)", FENCES.sub("", text))
    }
    pages = {ROOT / name for name in TEXTS if name.startswith("docs/")}
    assert {file for file in pages if file not in linked and file.parent not in linked} == set()


@pytest.mark.parametrize("name", TEXTS)
def test_every_script_named_in_a_document_can_be_run(name: str):
    for script in re.findall(r"(?<![\w/.])(scripts/[a-z_]+)\b(?!\.)", TEXTS[name]):
        assert os.access(ROOT / script, os.X_OK), script
