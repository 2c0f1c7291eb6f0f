"""The access file: what it may say, and how its mistakes are told."""

from pathlib import Path

import pytest

from model_training.access.access_file import ASKED_ABOUT, read_access_file
from model_training.access.principals import PrincipalKind
from model_training.errors import SettingsError

ISSUER = """
[[issuers]]
name = "corp"
issuer = "https://login.example.org"
audience = "model-training"
"""
ROLES = """
[decisions]
engine = "roles"
file = "roles.toml"
"""


def written(folder: Path, text: str, name: str = "access.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_paths_in_the_file_are_beside_it(tmp_path: Path):
    text = f'{ISSUER}key = "corp.pem"\n{ROLES}[audit]\nfile = "log/audit.jsonl"\n'
    access = read_access_file(written(tmp_path, text))

    assert access.issuers[0].key == tmp_path / "corp.pem"
    assert access.decisions.file == tmp_path / "roles.toml"
    assert access.audit is not None
    assert access.audit.file == tmp_path / "log/audit.jsonl"
    assert access.kinds == {PrincipalKind.USER}


BAD = {
    "no TOML": ("[decisions", r"access.toml is not valid TOML: .* Correct it there"),
    "no engine": (ISSUER, r"The setting decisions in .*: it is missing"),
    "an engine that is none": (
        f'{ISSUER}[decisions]\nengine = "opa2"',
        r"The setting decisions.engine in .*got \"opa2\"",
    ),
    "no audience": (
        f'[[issuers]]\nname = "corp"\nissuer = "https://a.example"\n{ROLES}',
        r"The setting issuers\[0\]\.audience in .*: it is missing, and there is no safe default",
    ),
    "an empty audience": (
        ISSUER.replace('"model-training"', '""') + ROLES,
        r"The setting issuers\[0\]\.audience in ",
    ),
    "an issuer without an address": (
        ISSUER.replace("https://", "") + ROLES,
        r"The setting issuer of corp in .*: it is no address .* Give jwks or key",
    ),
    "keys without a scheme": (
        f'{ISSUER}jwks = "login.example.org/keys"\n{ROLES}',
        r"The setting issuers\[0\]\.jwks in .*: expects an address with its scheme",
    ),
    "an unknown key": (
        f'{ISSUER}audiences = ["a"]\n{ROLES}',
        r"The setting issuers\[0\]\.audiences in .*: there is no such setting",
    ),
    "a name with a colon": (
        ISSUER.replace('"corp"', '"corp:a"') + ROLES,
        r"The setting issuers\[0\]\.name in ",
    ),
    "a name that is another way's": (
        ISSUER.replace('"corp"', '"kubernetes"') + ROLES,
        r"The setting name of kubernetes in .*: ids that begin with it are those of another way",
    ),
    "roles without a file": (
        f'{ISSUER}[decisions]\nengine = "roles"',
        r"The setting decisions\.file in .*: roles needs it",
    ),
    "a decision point without an address": (
        f'{ISSUER}[decisions]\nengine = "authzen"',
        r"The setting decisions\.url in .*: authzen needs it",
    ),
    "a decision point without a scheme": (
        f'{ISSUER}[decisions]\nengine = "opa"\nurl = "pdp:8181"',
        r"The setting decisions\.url in .*: expects an address with its scheme.*got \"pdp:8181\"",
    ),
    "what is for another engine": (
        f"{ISSUER}{ROLES}discover = true",
        r"The setting decisions\.discover in .*: it is for authzen, and the engine is roles",
    ),
    "too long a cache": (
        f'{ISSUER}[decisions]\nengine = "opa"\nurl = "https://pdp"\ncache = 60',
        r"The setting decisions\.cache in ",
    ),
    "certificates for a decision point without TLS": (
        f'{ISSUER}[decisions]\nengine = "opa"\nurl = "http://127.0.0.1:8181"\nca = "ca.pem"',
        r"The setting decisions\.ca in .*: certificates are shown by TLS alone, and url is http",
    ),
    "our certificate for one without TLS": (
        f'{ISSUER}[decisions]\nengine = "authzen"\nurl = "http://pdp"\nplain_http = true\n'
        'certificate = "c.pem"',
        r"The setting decisions\.certificate in .*: certificates are shown by TLS alone",
    ),
    "certificates for keys without TLS": (
        f'{ISSUER}jwks = "http://127.0.0.1/keys"\nca = "ca.pem"\n{ROLES}',
        r"The setting ca of corp in .*: its keys are not asked for by TLS.* or use https",
    ),
    "certificates for a key that is there": (
        f'{ISSUER}key = "corp.pem"\nca = "ca.pem"\n{ROLES}',
        r"The setting ca of corp in .*: its keys are not asked for by TLS",
    ),
    "nobody": (ROLES, r"lets nobody in: name issuers, api_keys or kubernetes"),
    "keys at aiSSEMBLE's": (
        f'{ISSUER}[api_keys]\nfile = "k"\n'
        '[decisions]\nengine = "aissemble"\nurl = "https://pdp.example"',
        r"aissemble cannot be asked about those who come in by api_keys",
    ),
    "users at the cluster": (
        f'{ISSUER}[decisions]\nengine = "kubernetes"',
        r"kubernetes cannot be asked about those who come in by issuers",
    ),
    "a number for a text": (
        ISSUER.replace('"model-training"', "7") + ROLES,
        r"The setting issuers\[0\]\.audience in ",
    ),
}


@pytest.mark.parametrize(("text", "sentence"), BAD.values(), ids=BAD)
def test_a_mistake_is_one_sentence_that_names_the_setting(tmp_path: Path, text, sentence):
    with pytest.raises(SettingsError, match=sentence) as refused:
        read_access_file(written(tmp_path, text))
    assert "\n" not in refused.value.message
    assert str(tmp_path) in refused.value.message


def test_all_mistakes_are_told_at_once(tmp_path: Path):
    text = '[[issuers]]\nname = "corp"\n[decisions]\nengine = "none"\n'
    with pytest.raises(SettingsError) as refused:
        read_access_file(written(tmp_path, text))
    assert len(refused.value.message.splitlines()) == 3


def test_a_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(SettingsError, match=r"cannot be read: No such file.*--access"):
        read_access_file(tmp_path / "absent.toml")


@pytest.mark.parametrize(
    ("more", "types"),
    [
        ("", ("at+jwt", "jwt")),
        ('jwks = "https://login.example.org/keys"', ("at+jwt", "jwt")),
        ('key = "corp.pem"', ("at+jwt", "jwt", "none")),
        ('types = ["AT+JWT"]', ("at+jwt",)),
        ('types = ["JWT", "none"]', ("jwt", "none")),
        ('key = "corp.pem"\ntypes = ["at+jwt"]', ("at+jwt",)),
    ],
)
def test_a_token_without_a_type_is_taken_where_a_key_is_given_or_where_it_is_said(
    tmp_path: Path, more: str, types: tuple[str, ...]
):
    access = read_access_file(written(tmp_path, f"{ISSUER}{more}\n{ROLES}"))
    assert access.issuers[0].accepted_types == types


def test_who_each_decision_point_can_be_asked_about():
    everybody = set(PrincipalKind)
    assert {engine: set(kinds) for engine, kinds in ASKED_ABOUT.items()} == {
        "roles": everybody,
        "authzen": everybody,
        "opa": everybody,
        "permit": everybody,
        "aissemble": {PrincipalKind.USER},
        "kubernetes": {PrincipalKind.SERVICE_ACCOUNT},
    }


# Existing deployments

ENABLED = """\
# as generated
public_key_path=keys/public.pem
jks_path=/opt/keystore.jks
jks_password=password
pdp_host_url=http://policy-decision-point:8080/api/pdp
"""


def test_auth_properties_of_an_existing_deployment_are_read(tmp_path: Path):
    access = read_access_file(written(tmp_path, ENABLED, "auth.properties"))

    [issuer] = access.issuers
    assert (issuer.issuer, issuer.audience) == ("aissemble.authority", "audience")
    assert issuer.algorithms == ("RS256",)
    assert issuer.key == tmp_path / "keys/public.pem"
    assert access.decisions.engine == "aissemble"
    assert access.decisions.url == "http://policy-decision-point:8080/api/pdp"
    assert access.decisions.plain_http


@pytest.mark.parametrize(
    ("value", "engine"),
    [("true", "aissemble"), ("TRUE", "aissemble"), ("false", "permit"), ("False", "permit")],
)
def test_its_switch_means_what_it_meant(tmp_path: Path, value: str, engine: str):
    text = f"{ENABLED}is_authorization_enabled = {value}\n"
    access = read_access_file(written(tmp_path, text, "auth.properties"))
    assert access.decisions.engine == engine


def test_the_standard_output_can_be_named(tmp_path: Path):
    access = read_access_file(
        written(tmp_path, f'{ISSUER}key = "corp.pem"\n{ROLES}[audit]\nfile = "-"\n')
    )
    assert access.audit is not None
    assert access.audit.file == "-"


def test_its_values_may_name_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PDP_HOST", "pdp.example")
    text = "public_key_path=k.pem\npdp_host_url=https://${PDP_HOST}/api/pdp\n"
    access = read_access_file(written(tmp_path, text, "auth.properties"))
    assert access.decisions.url == "https://pdp.example/api/pdp"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("pdp_host_url=https://pdp", "The setting public_key_path in .*: it is missing"),
        ("public_key_path=k.pem", "The setting pdp_host_url in .*: it is missing"),
        (
            "public_key_path=k.pem\npublic_key_path=l.pem",
            "Line 2 of .* gives public_key_path twice",
        ),
        ("public_key_path", "Line 1 of .* is not NAME=VALUE"),
        *(
            (
                f"public_key_path=k.pem\npdp_host_url=https://pdp\nis_authorization_enabled={slip}",
                "The setting is_authorization_enabled in .*: expects true or false",
            )
            for slip in ("", "no", "ture", "1", "${NOT_SET}")
        ),
    ],
)
def test_its_mistakes_are_told(tmp_path: Path, text: str, sentence: str):
    with pytest.raises(SettingsError, match=sentence):
        read_access_file(written(tmp_path, text, "auth.properties"))
