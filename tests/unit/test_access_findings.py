"""What doctor says of who may use the service that these settings would start."""

from pathlib import Path

import pytest

from model_training.cli.access_findings import access_findings
from model_training.settings import load_settings

ACCESS = """
[[issuers]]
name = "corp"
issuer = "https://login.example.org"
audience = "model-training"

[decisions]
engine = "{engine}"
{more}
"""


def told(**chosen: object) -> dict[str, tuple[str, str]]:
    findings = list(access_findings(load_settings(**chosen)))
    assert len(findings) <= 10
    return {each.what: (each.level, each.found) for each in findings}


def written(folder: Path, engine: str, more: str = "") -> Path:
    path = folder / "access.toml"
    path.write_text(ACCESS.format(engine=engine, more=more))
    return path


def test_a_service_of_one_user():
    found = told()
    assert found["reach"] == ("ok", "127.0.0.1: this machine alone")
    assert "token file" in found["who comes in"][1]
    assert "the one user may do everything" in found["who decides"][1]


def test_a_service_of_many(tmp_path: Path):
    access = written(tmp_path, "opa", 'url = "http://opa:8181"\nplain_http = true\ncache = 5')
    found = told(access=access, host="0.0.0.0", trusted_proxies=("10.0.0.1",))
    assert found["reach"] == ("ok", "0.0.0.0: other machines too")
    assert found["encryption"][0] == "warn"
    assert "tokens of https://login.example.org for model-training" in found["who comes in"][1]
    assert found["who decides"] == ("ok", "opa: http://opa:8181")
    assert found["decision point"][0] == "warn"
    assert found["trusted proxies"] == ("ok", "10.0.0.1/32")


def test_a_switch_that_is_off_is_a_warning(tmp_path: Path):
    assert told(access=written(tmp_path, "permit"))["who decides"][0] == "warn"


@pytest.mark.parametrize("engine", ["roles", "none"])
def test_a_broken_file_is_a_failure(tmp_path: Path, engine: str):
    level, words = told(access=written(tmp_path, engine))["access file"]
    assert level == "fail"
    assert "The setting decisions." in words
