"""Parameters: what is refused while reading, what a declaration holds, how values arrive."""

import argparse
import json
import os
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_training.declarations import (
    FAULTS_LIMIT,
    PARAMETERS_LIMIT,
    Declaration,
    Parameter,
    environment_of,
    flags_of,
    is_reserved,
    name_fault,
    parameter_faults,
    parse_parameters,
    text_of,
)
from model_training.errors import InvalidRequest, MalformedRequest
from model_training.jobs import canonical_json
from model_training.pipelines.parameter_tables import read_declaration

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,20}", fullmatch=True).filter(
    lambda name: not is_reserved(name)
)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | FINITE | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
PARAMETERS = st.dictionaries(NAMES, VALUES, max_size=6)

MALFORMED = {
    b'{"epochs": 1, "epochs": 2}': '"epochs" twice',
    b'{"a": {"b": 1, "b": 2}}': '"b" twice',
    b'{"a": NaN}': "NaN",
    b'{"a": -Infinity}': "-Infinity",
    b'{"a": 1e999}': "64-bit float",
    b'{"a": "\\ud800"}': "surrogate",
    b'{"\\udfff": 1}': "surrogate",
    b'{"\\ud800": 1, "\\ud800": 2}': "twice",
    b'{"a": 1': "cut",
    b'{"a": "half': "cut",
    b"{": "cut",
    b'{\n "a" 1}': "line 2, column 6",
    b"{} {}": "Extra data",
    b"{'a': 1}": "line 1",
    b'{"a": 1,}': "line 1",
    b'{"a": "x\ny"}': "control character",
    b"\xff\xfe{}": "not UTF-8: byte 0",
    b'{"a": "\xc3\x28"}': "not UTF-8: byte 7",
    b"\xef\xbb\xbf{}": "byte order mark",
    b'{"a": ' + b"9" * 4301 + b"}": "4300 digits",
    b'{"a": ' + b"[" * 64 + b"]" * 64 + b"}": "64 levels, at line 1, column 70",
    b"[" * 10_000: "64 levels",
    b'{"a":' * 10_000: "64 levels",
}


@pytest.mark.parametrize(("body", "reason"), MALFORMED.items(), ids=MALFORMED.values())
def test_a_body_that_is_no_strict_json_is_malformed_and_the_reason_told(body, reason):
    with pytest.raises(MalformedRequest) as refusal:
        parse_parameters(body)
    assert reason in refusal.value.message
    assert len(refusal.value.message) < 160
    assert refusal.value.message.isprintable()


@pytest.mark.parametrize("body", [b"", b" \r\n\t"])
def test_an_empty_body_holds_no_parameters(body):
    assert parse_parameters(body) == {}


@pytest.mark.parametrize("body", [b"[1]", b"null", b"3", b'"x"', b"true", b"1.5"])
def test_a_body_that_is_no_object_is_invalid(body):
    with pytest.raises(InvalidRequest) as refusal:
        parse_parameters(body)
    assert [fault.path for fault in refusal.value.faults] == ["body"]


def test_depth_64_and_4300_digits_are_still_read():
    deep = b'{"a":' + b"[" * 63 + b"]" * 63 + b"}"
    assert parse_parameters(deep)["a"] == json.loads("[" * 63 + "]" * 63)
    assert parse_parameters(b'{"a": -' + b"9" * 4300 + b"}")["a"] == -(10**4300 - 1)


def test_brackets_within_strings_are_no_depth():
    assert parse_parameters(rb'{"a": "\"[[[", "b": "' + b"[" * 1000 + b'"}')["a"] == '"[[['


@pytest.mark.parametrize(
    "body", [b'"' + b'\\"' * 200_000, b'"' + b"\\" * 200_000, b"{" + b'"' * 200_001]
)
def test_hostile_quotes_are_refused_in_linear_time(body):
    begun = time.process_time()
    with pytest.raises(MalformedRequest):
        parse_parameters(body)
    assert time.process_time() - begun < 0.5


@given(PARAMETERS)
def test_what_was_sent_as_json_is_what_is_read(parameters):
    assert parse_parameters(json.dumps(parameters).encode()) == parameters
    assert parse_parameters(canonical_json(parameters).encode()) == parameters


@given(st.binary(max_size=200))
def test_any_bytes_are_parsed_or_refused(body):
    try:
        assert isinstance(parse_parameters(body), dict)
    except (MalformedRequest, InvalidRequest) as refusal:
        refusal.message.encode()


@pytest.mark.parametrize(
    "name",
    ["PATH", "HOME", "LD_PRELOAD", "LD_", "DYLD_X", "PYTHONPATH", "PYTHON", "BASH_ENV", "ENV",
     "IFS", "NODE_OPTIONS", "PERL5LIB", "RUBYOPT", "GIT_SSH", "SSL_CERT_FILE", "CURL_CA_BUNDLE",
     "REQUESTS_CA_BUNDLE", "http_proxy", "HTTPS_PROXY", "No_Proxy", "KUBERNETES_PORT",
     "DB_SERVICE_HOST", "DB_SERVICE_PORT", "AWS_SECRET_ACCESS_KEY", "GOOGLE_API_KEY",
     "AZURE_TENANT_ID", "TMPDIR", "HOSTNAME", "MODEL_TRAINING_JOB", "NVIDIA_VISIBLE_DEVICES",
     "CUDA_VISIBLE_DEVICES", "GLIBC_TUNABLES", "MALLOC_CHECK_", "JAVA_TOOL_OPTIONS",
     "_JAVA_OPTIONS", "PIP_INDEX_URL", "UV_INDEX"],
)  # fmt: skip
def test_a_name_that_the_system_reads_is_refused_by_name(name):
    [fault] = parameter_faults({name: 1})
    assert fault.path == f"body.{name}"
    assert name in fault.message


@pytest.mark.parametrize(
    "name", ["path", "Path", "env", "python_version", "proxy", "lr", "_", "A1"]
)
def test_a_name_that_only_looks_like_a_reserved_one_is_accepted(name):
    assert parameter_faults({name: 1}) == ()


@pytest.mark.parametrize("name", ["", "1a", "a-b", "a b", "a.b", "ä", "a\n", "x" * 129, "a=b"])
def test_a_name_that_no_variable_can_have_is_refused(name):
    [fault] = parameter_faults({name: 1})
    assert fault.path.startswith("body.")
    assert len(fault.path) < 140


@pytest.mark.parametrize("value", ["a\0", ["\0"], {"x": ["\0"]}, {"\0": 1}])
def test_a_nul_is_refused_wherever_it_stands(value):
    [fault] = parameter_faults({"a": value})
    assert (fault.path, "U+0000" in fault.message) == ("body.a", True)


def test_the_size_counts_bytes_of_canonical_json():
    room = PARAMETERS_LIMIT - len('{"a":""}')
    assert parameter_faults({"a": "x" * room}) == ()
    [fault] = parameter_faults({"a": "x" * (room + 1)})
    assert (fault.path, str(PARAMETERS_LIMIT + 1) in fault.message) == ("body", True)
    assert parameter_faults({"a": "ä" * room})[0].path == "body"


def test_every_fault_is_told_up_to_a_hundred():
    assert [f.path for f in parameter_faults({"PATH": 1, "1": 2, "ok": 3, "b": "\0"})] == [
        "body.PATH", "body.1", "body.b",
    ]  # fmt: skip
    many = parameter_faults({f"{number}": number for number in range(5000)})
    assert len(many) == FAULTS_LIMIT + 1
    assert many[-1].path == "body"


def test_thousands_of_unknown_names_are_answered_at_once():
    declaration = Declaration({f"p{n}": Parameter(type="integer") for n in range(50)})
    begun = time.process_time()
    _, faults = declaration.validate({f"unknown_name_{n}": n for n in range(20_000)})
    assert len(faults) == FAULTS_LIMIT + 1
    assert time.process_time() - begun < 1


GOOD = {
    "string": ["", "x", "20"],
    "integer": [0, -3, 10**30],
    "number": [0.5, -1e300, 20.0],
    "boolean": [True, False],
    "object": [{}, {"a": [1]}],
    "array": [[], [1, "a"]],
}


@pytest.mark.parametrize("kind", GOOD)
def test_a_type_takes_its_own_values_and_no_others(kind):
    declaration = Declaration({"x": Parameter(type=kind)})
    for other, values in GOOD.items():
        for value in values:
            _, faults = declaration.validate({"x": value})
            fits = other == kind or (kind == "number" and other == "integer")
            assert (faults == ()) == fits
    assert declaration.validate({"x": None})[1] != ()


def test_true_and_a_whole_float_are_no_integers():
    declaration = Declaration({"epochs": Parameter(type="integer", minimum=1, maximum=1000)})
    told = {
        True: "a boolean", 20.0: "a number", "20": "a string", None: "null",
        0: "another integer", 1001: "another integer",
    }  # fmt: skip
    for value, words in told.items():
        _, [fault] = declaration.validate({"epochs": value})
        assert fault.path == "body.epochs"
        assert fault.message == f"expects an integer from 1 to 1000, got {words}"
    for value in (1, 1000):
        assert declaration.validate({"epochs": value})[1] == ()


def test_defaults_are_filled_in_and_given_values_kept():
    declaration = Declaration(
        {
            "epochs": Parameter(type="integer", default=20),
            "verbose": Parameter(type="boolean", default=False),
            "name": Parameter(type="string"),
        }
    )
    assert declaration.validate({"epochs": 0}) == ({"epochs": 0, "verbose": False}, ())


def test_a_required_parameter_that_is_missing_is_named():
    _, [fault] = Declaration({"data": Parameter(type="string", required=True)}).validate({})
    assert (fault.path, fault.message) == ("body.data", "is required: expects a string")


def test_an_unknown_parameter_is_refused_with_the_nearest_name():
    declaration = Declaration({"learning_rate": Parameter(type="number")})
    _, [fault] = declaration.validate({"learning_rat": 1})
    assert "did you mean learning_rate?" in fault.message
    _, [fault] = declaration.validate({"q": 1})
    assert "it takes learning_rate" in fault.message
    _, [fault] = Declaration({}).validate({"q": 1})
    assert "takes none" in fault.message


def test_choices_and_patterns_hold_for_the_whole_value():
    declaration = Declaration(
        {
            "optimizer": Parameter(type="string", choices=("sgd", "adam")),
            "run": Parameter(type="string", pattern="[a-z]+"),
            "size": Parameter(type="integer", choices=(1, 2)),
        }
    )
    assert declaration.validate({"optimizer": "adam", "run": "abc", "size": 1})[1] == ()
    _, faults = declaration.validate({"optimizer": "Adam", "run": "abc\n", "size": True})
    assert [fault.message for fault in faults] == [
        'expects one of "sgd", "adam", got another string',
        "expects a string that matches [a-z]+, got another string",
        "expects one of 1, 2, got a boolean",
    ]
    _, [fault] = declaration.validate({"run": "a" * 10_001})
    assert "10000 characters" in fault.message


def test_defaults_may_not_push_the_parameters_over_the_limit():
    declaration = Declaration(
        {"a": Parameter(type="string"), "b": Parameter(type="string", default="x" * 60_000)}
    )
    assert declaration.validate({"a": "x" * 30_000})[1] == ()
    _, [fault] = declaration.validate({"a": "x" * 60_000})
    assert "with the defaults" in fault.message


def test_a_long_value_is_shown_short_and_harmless():
    _, [fault] = Declaration({"a": Parameter(type="integer")}).validate({"a": "\x1b[2J" * 5000})
    assert len(fault.message) < 100
    assert "\x1b" not in fault.message


def test_a_declaration_survives_the_way_over_plain_values():
    tables = {
        "epochs": {
            "type": "integer",
            "default": 20,
            "minimum": 1,
            "maximum": 90,
            "required": False,
        },
        "kind": {"type": "string", "choices": ["a", "b"], "required": True, "description": "which"},
        "run": {"type": "string", "pattern": "[a-z]+", "required": False},
    }
    declaration, faults = read_declaration(tables)
    assert faults == ()
    assert declaration.to_json() == tables
    assert read_declaration(declaration.to_json()) == (declaration, ())


BAD_TABLES = {
    "type": {"type": "int"},
    "": {"default": 1},
    "minimum": {"type": "string", "minimum": 1},
    "maximum": {"type": "integer", "maximum": 1.5},
    "pattern": {"type": "string", "pattern": "("},
    "choices": {"type": "string", "choices": ["a", 1]},
    "default": {"type": "string", "choices": ["a"], "default": "b"},
    "required": {"type": "string", "default": "", "required": True},
    "description": {"type": "string", "description": 3},
    "defalt": {"type": "string", "defalt": "x"},
}


@pytest.mark.parametrize("key", BAD_TABLES)
def test_a_bad_key_of_a_declared_parameter_is_named(key):
    _, [fault] = read_declaration({"p": BAD_TABLES[key]})
    assert fault.path == ("parameters.p" + (f".{key}" if key else ""))


@pytest.mark.parametrize(
    "table",
    [
        {"type": "integer", "minimum": 5, "maximum": 1, "default": 3},
        {"type": "integer", "default": 3, "minimum": 4},
        {"type": "number", "default": float("inf")},
        {"type": "number", "minimum": float("nan")},
        {"type": "object", "choices": [{}]},
        {"type": "string", "choices": []},
        {"type": "string", "default": "\0"},
        {"type": "integer", "default": 16**5000},
        {"type": "boolean", "pattern": "x"},
        "integer",
        None,
    ],
)
def test_a_declaration_that_contradicts_itself_is_refused(table):
    declaration, faults = read_declaration({"p": table, "q": {"type": "string"}})
    assert faults
    assert all(fault.path.startswith("parameters.p") for fault in faults)
    assert list(declaration.parameters) == ["q"]


@pytest.mark.parametrize("name", ["PATH", "a b", ""])
def test_a_name_that_no_request_may_use_cannot_be_declared(name):
    _, [fault] = read_declaration({name: {"type": "string"}})
    assert fault.path == f"parameters.{name}"


@given(PARAMETERS)
def test_text_tells_the_value_again(parameters):
    for name, text in environment_of(parameters).items():
        value = parameters[name]
        if isinstance(value, str):
            assert text == value
        elif value is None:
            assert text == ""
        else:
            assert json.loads(text) == value
            assert "\n" not in text


@given(PARAMETERS)
def test_argparse_reads_every_flag_as_it_was_meant(parameters):
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    for name in parameters:
        parser.add_argument(f"--{name}")
    read = vars(parser.parse_args(flags_of(parameters)))
    assert read == environment_of(parameters)


def test_a_value_that_begins_with_a_dash_is_joined_to_its_flag():
    assert flags_of({"a": -1, "b": "-x", "c": 2}) == ("--a=-1", "--b=-x", "--c", "2")


@settings(max_examples=8, deadline=None)
@given(st.lists(PARAMETERS, min_size=6, max_size=6))
def test_values_arrive_byte_for_byte_through_a_real_environment(batch):
    # One process reads many variables: a process per example would cost more than it shows.
    sent = {
        f"v{number}_{name}": text
        for number, parameters in enumerate(batch)
        for name, text in environment_of(parameters).items()
    }
    code = (
        "import os, json, sys;"
        "print(json.dumps({k.decode(): v.hex() for k, v in os.environb.items()}))"
    )
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], env=sent, capture_output=True, check=True
    )
    arrived = json.loads(result.stdout)
    assert {name: arrived[name] for name in sent} == {
        name: os.fsencode(text).hex() for name, text in sent.items()
    }


@given(st.text())
def test_a_name_without_fault_is_a_portable_variable(name):
    if name_fault(name) is None:
        assert name.isascii()
        assert name.isidentifier()


def test_null_is_empty_text():
    assert text_of(None) == ""
