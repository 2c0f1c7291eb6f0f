"""Where settings come from, which wins, and what a mistake is answered with."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_training.errors import SettingsError
from model_training.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch, tmp_path):
    """No variable of ours, and a home without a settings file."""
    for name in list(os.environ):
        if name.upper().startswith("MODEL_TRAINING_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def toml(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def refusal_of(**explicit):
    with pytest.raises(SettingsError) as refusal:
        load_settings(**explicit)
    return refusal.value.message


def test_without_anything_set_the_service_is_local_and_complete(tmp_path):
    assert load_settings().model_dump() == {
        "host": "127.0.0.1",
        "port": 8642,
        "data": tmp_path / "state" / "model-training",
        "pipelines": (),
        "executor": "local",
        "slots": None,
        "gpus": None,
        "namespace": None,
        "all_namespaces": False,
        "kubeconfig": None,
        "registry": None,
        "image_tag": "latest",
        "image_check": "registry",
        "image_unknown": "refuse",
        "insecure_registry": (),
        "registry_config": None,
        "outputs_claim": None,
        "outputs_folder": None,
        "retention": None,
        "log_limit": 4 * 2**30,
        "disk_reserve": 512 * 2**20,
        "body_limit": 262_144,
        "header_timeout": 10.0,
        "body_timeout": 30.0,
        "keep_alive": 5.0,
        "max_followers": 10_000,
        "allowed_hosts": (),
        "access": None,
        "tls_certificate": None,
        "tls_key": None,
        "trusted_proxies": (),
        "cors_origins": (),
        "principal_rate": 100,
        "principal_followers": 200,
    }


def test_option_then_variable_then_file_then_default(tmp_path, monkeypatch):
    file = toml(tmp_path / "c.toml", "port = 1\nslots = 1\nkeep_alive = 1\n")
    monkeypatch.setenv("MODEL_TRAINING_PORT", "2")
    monkeypatch.setenv("MODEL_TRAINING_SLOTS", "2")
    loaded = load_settings(config=file, port=3, slots=None)
    assert (loaded.port, loaded.slots, loaded.keep_alive, loaded.body_timeout) == (3, 2, 1.0, 30.0)


def test_an_empty_variable_is_not_set(tmp_path, monkeypatch):
    monkeypatch.setenv("MODEL_TRAINING_PORT", "")
    assert load_settings().port == 8642
    assert load_settings(config=toml(tmp_path / "c.toml", "port = 1")).port == 1


def test_an_option_that_was_not_given_leaves_the_others_their_say(tmp_path):
    file = toml(tmp_path / "c.toml", 'pipelines = ["/p"]\nslots = 2')
    loaded = load_settings(config=file, pipelines=(), slots=None)
    assert (loaded.pipelines, loaded.slots) == ((Path("/p"),), 2)


def test_the_file_is_named_by_option_then_variable_then_found(tmp_path, monkeypatch):
    toml(tmp_path / "config" / "model-training" / "config.toml", "port = 1")
    assert load_settings().port == 1
    monkeypatch.setenv("MODEL_TRAINING_CONFIG", str(toml(tmp_path / "b.toml", "port = 2")))
    assert load_settings().port == 2
    assert load_settings(config=toml(tmp_path / "c.toml", "port = 3")).port == 3


def test_units_may_be_written_out_everywhere(tmp_path, monkeypatch):
    monkeypatch.setenv("MODEL_TRAINING_RETENTION", "7d")
    file = toml(tmp_path / "c.toml", 'log_limit = "1Gi"\nbody_limit = 2048\nbody_timeout = 1.5')
    loaded = load_settings(config=file, disk_reserve="2G", header_timeout="2m")
    assert loaded.retention == 7 * 86_400
    assert (loaded.log_limit, loaded.body_limit) == (2**30, 2048)
    assert (loaded.disk_reserve, loaded.header_timeout) == (2 * 10**9, 120.0)
    assert loaded.body_timeout == 1.5


def test_lists_are_written_as_each_source_writes_lists(tmp_path, monkeypatch):
    monkeypatch.setenv("MODEL_TRAINING_PIPELINES", f"/a{os.pathsep}/b c")
    monkeypatch.setenv("MODEL_TRAINING_GPUS", "0, 2")
    monkeypatch.setenv("MODEL_TRAINING_ALLOWED_HOSTS", "Train.example,b")
    loaded = load_settings()
    assert loaded.pipelines == (Path("/a"), Path("/b c"))
    assert loaded.gpus == (0, 2)
    assert loaded.allowed_hosts == ("train.example", "b")
    assert load_settings(pipelines=(tmp_path,), gpus=[1]).pipelines == (tmp_path,)
    monkeypatch.setenv("MODEL_TRAINING_GPUS", "")
    file = toml(tmp_path / "c.toml", "gpus = []")
    assert load_settings(config=file).gpus == ()


def test_folders_are_absolute_and_those_of_a_file_relative_to_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    file = toml(tmp_path / "sub" / "c.toml", 'data = "d"\npipelines = ["p", "/q", "~/r"]')
    loaded = load_settings(config=Path("sub/c.toml"))
    assert loaded.data == tmp_path / "sub" / "d"
    assert loaded.pipelines == (
        tmp_path / "sub" / "p", Path("/q"), Path("/home/somebody/r"),
    )  # fmt: skip
    assert load_settings(config=file, data="e").data == tmp_path / "e"
    monkeypatch.setenv("MODEL_TRAINING_DATA", "f")
    assert load_settings(config=file).data == tmp_path / "f"


def test_settings_do_not_change():
    with pytest.raises(ValueError, match="frozen"):
        load_settings().port = 1


BAD = {
    "trusted_proxies": ["proxy", "10.0.0.0/33", "10.0.0.1/8"],
    "cors_origins": ["*", "dash.example.org", "https://dash.example.org/", "null"],
    "principal_rate": [0, "many"],
    "principal_followers": [0],
    "host": ["example.org", "300.0.0.1", ""],
    "port": [-1, 65_536, "http", 1.5, True],
    "data": ["", 3],
    "executor": ["docker", "Local"],
    "slots": [0, -1, "many", 10_001],
    "gpus": ["0,0", "-1", "x", [1.5]],
    "retention": ["0", "-1d", "soon", float("inf"), float("nan"), "99999999d"],
    "log_limit": ["1Ki", "4GiB", -1],
    "disk_reserve": ["-1", "x"],
    "body_limit": [0, "100"],
    "header_timeout": [0, "2h"],
    "keep_alive": [0, -5],
    "max_followers": [0],
    "allowed_hosts": ["*", "a:1", "http://a", "a,,b", "a b"],
}


@pytest.mark.parametrize(("name", "value"), [(n, value) for n in BAD for value in BAD[n]])
def test_a_wrong_value_names_setting_option_and_way_out(name, value):
    option = "--" + name.replace("_", "-")
    message = refusal_of(**{name: value})
    assert message.startswith(f"The setting {name} (from the option {option}): ")
    assert message.endswith(f"Give {option} another value.")
    assert len(message) < 300


def test_the_source_of_a_wrong_value_is_named(tmp_path, monkeypatch):
    file = toml(tmp_path / "c.toml", "port = 70000\nslots = 0")
    monkeypatch.setenv("MODEL_TRAINING_SLOTS", "none")
    first, second = refusal_of(config=file).splitlines()
    assert f"The setting port (from the file {file})" in first
    assert first.endswith("Correct port there.")
    assert "The setting slots (from the variable MODEL_TRAINING_SLOTS)" in second
    assert second.endswith("Correct or unset MODEL_TRAINING_SLOTS.")


def test_an_unknown_setting_is_refused_with_the_nearest(tmp_path, monkeypatch):
    message = refusal_of(config=toml(tmp_path / "c.toml", 'retension = "1d"'))
    assert "did you mean retention?" in message
    assert "c.toml" in message
    assert "known are host, port" in refusal_of(config=toml(tmp_path / "c.toml", "zzz = 1"))
    assert "did you mean slots?" in refusal_of(slot=1)
    monkeypatch.setenv("MODEL_TRAINING_RETENSION", "1d")
    assert "did you mean MODEL_TRAINING_RETENTION?" in refusal_of()


@pytest.mark.parametrize(
    "name",
    ["URL", "TOKEN", "JOB", "PIPELINE", "PARAMETERS", "PARAMETERS_FILE", "OUTPUT", "CRASH_AT",
     "API_SERVICE_HOST", "API_PORT_8642_TCP_ADDR", "API_PORT"],
)  # fmt: skip
def test_variables_of_others_do_not_keep_the_service_from_starting(name, monkeypatch):
    monkeypatch.setenv(f"MODEL_TRAINING_{name}", "x")
    assert load_settings().port == 8642


def test_a_file_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    missing = tmp_path / "missing.toml"
    assert f"{missing} cannot be read" in refusal_of(config=missing)
    broken = toml(tmp_path / "broken.toml", "port =\n")
    assert "line 1" in refusal_of(config=broken)
    (tmp_path / "bytes.toml").write_bytes(b"\xff")
    assert "not valid TOML" in refusal_of(config=tmp_path / "bytes.toml")
    monkeypatch.setenv("MODEL_TRAINING_CONFIG", str(missing))
    assert "missing.toml" in refusal_of()


def test_a_loopback_address_of_either_kind_is_taken():
    for host in ("localhost", "::1", "127.8.9.1"):
        assert load_settings(host=host).host == host


def test_slots_come_from_the_gpus_or_half_the_cpus():
    assert load_settings(slots=7).slots_with(gpus=2) == 7
    assert load_settings().slots_with(gpus=3) == 3
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "from model_training.settings import load_settings;"
        "print(load_settings().slots_with(gpus=0))"
    )
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, check=True, text=True).stdout == "1\n"


def test_every_setting_says_its_meaning():
    for name, setting in Settings.model_fields.items():
        assert setting.description, name


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(sorted(Settings.model_fields)),
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text()),
)
def test_any_value_is_taken_or_refused_in_words(name, value):
    try:
        load_settings(**{name: value})
    except SettingsError as refusal:
        message = refusal.message
    else:
        message = name
    assert name in message


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1"])
def test_other_machines_are_served_only_with_access_control_and_tls(tmp_path, host):
    assert "no access control is configured" in refusal_of(host=host)
    access = tmp_path / "access.toml"
    assert "would serve other machines without TLS" in refusal_of(host=host, access=access)
    pem = tmp_path / "server.pem"
    assert load_settings(host=host, access=access, tls_certificate=pem).is_beyond_loopback
    assert load_settings(host=host, access=access, trusted_proxies=("10.0.0.1",))


def test_a_key_without_a_certificate_is_refused(tmp_path):
    assert "of no use without tls_certificate" in refusal_of(tls_key=tmp_path / "key.pem")
