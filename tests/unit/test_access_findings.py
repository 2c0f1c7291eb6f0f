"""What doctor says of who may use the service that these settings would start."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal

from model_training.cli.access_findings import access_findings
from model_training.settings import load_settings
from tests.unit.access_lab.lying_pdp import JSON, FakePdp, Said, fake_pdp

ACCESS = """
[[issuers]]
name = "corp"
issuer = "https://login.example.org"
audience = "model-training"

[decisions]
engine = "{engine}"
{more}
"""


@pytest.fixture
def pdp() -> Iterator[FakePdp]:
    """In a thread, as what asks it waits."""
    with (
        start_blocking_portal("asyncio") as portal,
        portal.wrap_async_context_manager(fake_pdp()) as fake,
    ):
        yield fake


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


def test_a_service_of_many(tmp_path: Path, pdp: FakePdp):
    more = f'url = "{pdp.url}"\nplain_http = true\ncache = 5'
    access = written(tmp_path, "opa", more)
    found = told(access=access, host="0.0.0.0", trusted_proxies=("10.0.0.1",))
    assert found["reach"] == ("ok", "0.0.0.0: other machines too")
    assert found["encryption"][0] == "warn"
    assert "tokens of https://login.example.org for model-training" in found["who comes in"][1]
    assert found["who decides"] == ("ok", f"opa: {pdp.url}, which answers")
    assert found["decision point"][0] == "warn"
    assert found["trusted proxies"] == ("ok", "10.0.0.1/32")


def test_a_switch_that_is_off_is_a_warning(tmp_path: Path):
    assert told(access=written(tmp_path, "permit"))["who decides"][0] == "warn"


def test_a_decision_point_is_asked_a_question_about_nobody(tmp_path: Path, pdp: FakePdp):
    access = written(tmp_path, "opa", f'url = "{pdp.url}"\npath = "no/such_rule"')
    pdp.said = lambda _: Said(b"{}", JSON)
    level, words = told(access=access)["who decides"]
    assert level == "warn"
    assert "the rule of decisions.path is undefined for a question about nobody" in words
    assert [each.path for each in pdp.asked] == ["/v1/data/no/such_rule"]

    pdp.instead = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
    level, words = told(access=access)["who decides"]
    assert level == "fail"
    assert f"opa: {pdp.url}: " in words
    assert "its status is 404" in words


def test_one_that_is_not_there_is_a_failure(tmp_path: Path):
    access = written(tmp_path, "authzen", 'url = "http://127.0.0.1:1"')
    level, words = told(access=access)["who decides"]
    assert (level, "takes no connection" in words) == ("fail", True)


def test_a_file_that_is_named_and_cannot_be_used_is_told_with_its_setting(tmp_path: Path):
    access = written(tmp_path, "authzen", 'url = "https://127.0.0.1:1"\nca = "absent.pem"')
    level, words = told(access=access)["who decides"]
    assert level == "fail"
    assert "The setting decisions.ca: " in words


def test_a_mistake_in_the_roles_is_told_though_a_running_service_goes_on(tmp_path: Path):
    roles = tmp_path / "roles.toml"
    access = written(tmp_path, "roles", 'file = "roles.toml"')
    assert told(access=access)["who decides"][0] == "fail"
    roles.write_text('[roles.reader]\nservice = ["list"]\n')
    roles.chmod(0o644)
    assert told(access=access)["who decides"] == ("ok", f"roles: {roles}")
    roles.write_text('[roles.reader]\nservice = ["fly"]\n')
    level, words = told(access=access)["who decides"]
    assert level == "fail"
    assert 'roles.reader.service: "fly" is no action' in words


@pytest.mark.parametrize("engine", ["roles", "none"])
def test_a_broken_file_is_a_failure(tmp_path: Path, engine: str):
    level, words = told(access=written(tmp_path, engine))["access file"]
    assert level == "fail"
    assert "The setting decisions." in words
