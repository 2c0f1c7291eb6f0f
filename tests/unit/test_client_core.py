"""The client's rules without any I/O: parsing events, resuming, retrying, rebuilding errors."""

import base64
import json
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_training import errors
from model_training.client import following, operations
from model_training.client.events import Ended, EventParser, LogBytes, Reconnecting
from model_training.client.exchange import (
    Answer,
    Disconnected,
    Effect,
    Emit,
    Open,
    Operation,
    Pause,
    Read,
    Reply,
    Request,
    Send,
)
from model_training.client.problems import error_of
from model_training.client.requests import (
    create_request,
    job_path,
    list_request,
    log_request,
    next_page_request,
    output_path,
)
from model_training.client.retries import LASTING_PATIENCE_S, Retries
from model_training.jobs import JobState

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "model-training-digits-x"


def cut_at(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(edges)]


def parsed(pieces: list[bytes]) -> list[tuple[str, str | None, str]]:
    parser = EventParser()
    return [(e.kind, e.id, e.data) for piece in pieces for e in parser.feed(piece)]


fields = st.sampled_from(
    [
        b"event: log",
        b"data: {}",
        b"data: \xc3\xa9",
        b"data",
        b"id: 1.5",
        b"id",
        b": ping",
        b"x: y",
        b"",
    ]
)
ends = st.sampled_from([b"\n", b"\r\n", b"\r"])
streams = st.lists(st.tuples(fields, ends)).map(lambda ls: b"".join(a + b for a, b in ls))


@given(st.one_of(streams, st.binary()), st.lists(st.integers(0, 10_000)))
def test_events_are_the_same_however_the_stream_is_cut(stream: bytes, cuts: list[int]):
    assert parsed(cut_at(stream, cuts)) == parsed([stream])


def test_an_event_has_its_kind_its_id_and_all_its_lines():
    stream = b"\xef\xbb\xbf: hello\n\nevent: log\nid: 1.7\ndata: a\ndata:b\n\ndata: cut"
    assert parsed([stream]) == [("log", "1.7", "a\nb")]


class LogServer:
    """Answers follow requests for one log; connections end where the test says."""

    def __init__(self, log: bytes, step: int, lives: list[int]) -> None:
        self.log = log
        self.step = step
        self.lives = iter(lives)
        self.pieces: Iterator[bytes] = iter(())

    def open(self, request: Request) -> Answer:
        start = int(request.headers.get("last-event-id", "1.0").partition(".")[2])
        stream = self._stream(start)
        life = next(self.lives, None)
        self.pieces = iter([stream if life is None else stream[:life]])
        self.cut = life is not None and life < len(stream)
        return Answer(200, {"model-training-position": "1.0"})

    def read(self) -> bytes:
        piece = next(self.pieces, b"")
        if not piece and self.cut:
            raise Disconnected("cut", sent=True)
        return piece

    def perform(self, effect: Effect) -> Reply:
        match effect:
            case Open(request) | Send(request):
                return self.open(request)
            case Read():
                return self.read()
            case _:
                return None

    def _stream(self, start: int) -> bytes:
        events = ['event: state\ndata: {"state": "running"}']
        for at in range(start, len(self.log), self.step):
            piece = self.log[at : at + self.step]
            data = json.dumps({"base64": base64.b64encode(piece).decode()})
            events.append(f"event: log\nid: 1.{at + len(piece)}\ndata: {data}")
        events.append('event: end\ndata: {"state": "succeeded", "exit_code": 0}')
        return "".join(event + "\n\n" for event in events).encode()


def performed(operation: Operation[object], server: LogServer) -> list[object]:
    """Everything that an operation emits."""
    emitted: list[object] = []
    try:
        effect = next(operation)
        while True:
            if isinstance(effect, Emit):
                emitted.append(effect.item)
            try:
                reply = server.perform(effect)
            except Disconnected as cut:
                effect = operation.throw(cut)
            else:
                effect = operation.send(reply)
    except StopIteration:
        return emitted


@given(st.binary(max_size=300), st.integers(1, 50), st.lists(st.integers(0, 900), max_size=8))
def test_following_gives_every_byte_once_wherever_connections_are_cut(
    log: bytes, step: int, lives: list[int]
):
    server = LogServer(log, step, lives)
    events = performed(following.follow(NAME, {}, 10.0), server)
    assert b"".join(e.data for e in events if isinstance(e, LogBytes)) == log
    assert isinstance(events[-1], Ended)
    assert sum(isinstance(e, Ended) for e in events) == 1


def test_a_tail_that_was_cut_before_its_first_byte_is_not_chosen_anew():
    asked: list[Request] = []

    class Server(LogServer):
        def open(self, request: Request) -> Answer:
            asked.append(request)
            super().open(request)
            return Answer(200, {"model-training-position": "1.40"})

    performed(following.follow(NAME, {"tail": 3}, 10.0), Server(b"x" * 50, 10, [0]))
    assert [r.headers.get("last-event-id") for r in asked] == [None, "1.40"]


def test_following_that_cannot_go_on_is_an_error_and_never_an_end():
    class Away(LogServer):
        def open(self, request: Request) -> Answer:
            if "last-event-id" in request.headers:
                raise Disconnected("refused", sent=False)
            return super().open(request)

    with pytest.raises(errors.ServerUnreachable, match="refused"):
        performed(following.follow(NAME, {}, 10.0), Away(b"abc", 1, [200]))


def test_retries_stay_within_their_patience_and_slow_down():
    now = [0.0]
    retries = Retries(LASTING_PATIENCE_S, clock=lambda: now[0])
    delays = []
    while (delay := retries.delay_after_cut()) is not None:
        delays.append(delay)
        now[0] += delay
    assert LASTING_PATIENCE_S - 5 <= sum(delays) <= LASTING_PATIENCE_S
    assert delays[0] <= 0.1
    assert max(delays) <= 5.0
    retries.succeeded(progress=True)
    assert retries.delay_after_cut() is not None


def test_busy_waits_as_long_as_the_server_asks():
    retries = Retries(10.0)
    assert 3 <= (retries.delay_after_busy(Answer(503, {"retry-after": "3"})) or 0) < 3.2
    assert retries.delay_after_busy(Answer(503, {"retry-after": "30"})) is None


def test_a_delete_whose_answer_was_lost_is_done_when_the_job_is_gone():
    operation = operations.delete(NAME, None, 10.0)
    next(operation)
    assert isinstance(operation.throw(Disconnected("cut", sent=True)), Pause)
    assert isinstance(operation.send(None), Send)
    with pytest.raises(StopIteration) as stop:
        operation.send(Answer(404, {}, b"{}"))
    assert stop.value.value is None


def test_a_delete_that_never_left_is_not_taken_for_done():
    operation = operations.delete(NAME, None, 10.0)
    next(operation)
    operation.throw(Disconnected("refused", sent=False))
    operation.send(None)
    with pytest.raises(errors.NotFound):
        operation.send(Answer(404, {}, b"{}"))


def test_a_create_is_sent_again_with_the_same_key():
    operation = operations.create("digits", {"epochs": 3}, {}, 10.0)
    first = next(operation)
    operation.throw(Disconnected("cut", sent=True))
    again = operation.send(None)
    assert isinstance(first, Send)
    assert first == again
    assert len(first.request.headers["idempotency-key"]) >= 22


def test_two_creates_have_two_keys_unless_one_is_given():
    keys = [create_request("p", {}, {}).headers["idempotency-key"] for _ in range(2)]
    assert keys[0] != keys[1]
    assert create_request("p", {}, {"idempotency_key": "k"}).headers["idempotency-key"] == "k"


def test_job_options_travel_in_the_query_and_parameters_in_the_body():
    request = create_request("p", {"timeout": 1}, {"timeout": "2h", "cpu": 0.5, "gpu": 1})
    assert request.query == (("pipeline", "p"), ("timeout", "2h"), ("cpu", "0.5"), ("gpu", "1"))
    assert json.loads(request.body) == {"timeout": 1}


def test_a_training_parameter_given_as_an_option_is_refused_with_the_way_out():
    with pytest.raises(TypeError, match=r"epochs; training parameters go into the mapping"):
        create_request("p", None, {"epochs": 3})  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, b"x", "\ud800"])
def test_a_parameter_that_is_no_json_is_refused_before_it_is_sent(value: object):
    with pytest.raises(errors.InvalidRequest, match="cannot be written as JSON"):
        create_request("p", {"x": value}, {})


def test_parameters_take_the_bytes_that_the_limit_counts():
    assert create_request("p", {"x": "é"}, {}).body == '{"x": "é"}'.encode()


@given(st.text(min_size=1))
def test_no_name_can_leave_its_place_in_a_path(name: str):
    name = name.encode("utf-8", "ignore").decode()
    path = job_path(name, "stop")
    assert path.count("/") == 3
    assert not set("?#\r\n \0") & set(path)
    assert "?" not in output_path("n", name)


def test_filters_may_repeat_and_none_is_left_out():
    request = list_request({"state": ["failed", "active"], "pipeline": "p"}, limit=5)
    assert request.query == (
        ("state", "failed"),
        ("state", "active"),
        ("pipeline", "p"),
        ("limit", "5"),
    )


def test_the_next_page_is_asked_of_the_same_server():
    link = '<http://elsewhere/training-jobs?limit=5&cursor=a%2Bb>; rel="next"'
    assert next_page_request(link) == Request(
        path="/training-jobs", query=(("limit", "5"), ("cursor", "a+b"))
    )
    for elsewhere in ("1/x?cursor=c", ".evil.example/x?cursor=c", "@host/x?cursor=c"):
        assert next_page_request(f'<{elsewhere}>; rel="next"') == Request(
            path="/training-jobs", query=(("cursor", "c"),)
        )
    assert next_page_request("") is None


@pytest.mark.parametrize(
    "body", [b'{"status": 422, "errors": ["a"]}', b'{"status": 422, "errors": 5}', b"[" * 200_000]
)
def test_an_error_that_is_none_is_an_error_all_the_same(body: bytes):
    answer = Answer(422, {"retry-after": "\u00b2"}, body)
    assert isinstance(error_of(answer, Request(path="/training-jobs")), errors.InvalidRequest)


def test_log_options_that_are_unknown_are_refused():
    with pytest.raises(TypeError, match="lines"):
        log_request("n", {"lines": 3})  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(("limit", "expected"), [(None, 3), (2, 2), (0, 0)])
def test_a_list_goes_through_its_pages_as_far_as_asked(limit: int | None, expected: int):
    class Pages(LogServer):
        def open(self, request: Request) -> Answer:
            second = ("cursor", "c") in request.query
            jobs = [{**JOB, "state": "running"}] * (1 if second else 2)
            link = {} if second else {"link": '</training-jobs?cursor=c>; rel="next"'}
            return Answer(200, link, json.dumps(jobs).encode())

    found = performed(operations.list_jobs({}, limit, 1.0), Pages(b"", 1, []))
    assert len(found) == expected


def answer(status: int, **problem: object) -> Answer:
    body = json.dumps({"status": status, **problem}).encode()
    return Answer(status, {"retry-after": "7"}, body)


@pytest.mark.parametrize(
    ("kind", "error_class"),
    [
        ("job-not-found", errors.JobNotFound),
        ("output-not-found", errors.OutputNotFound),
        ("idempotency-conflict", errors.IdempotencyConflict),
        ("disk-reserve-reached", errors.DiskReserveReached),
        ("unauthenticated", errors.Unauthenticated),
    ],
)
def test_the_type_of_a_problem_becomes_its_error_again(
    kind: str, error_class: type[errors.ModelTrainingError]
):
    error = error_of(answer(400, type=f"/problems/{kind}", detail="so it is"), Request(path="/"))
    assert type(error) is error_class
    assert error.message == "so it is"
    assert error.problem is not None


def test_every_status_of_the_contract_is_an_error_of_its_own_kind_without_a_known_type():
    for status in (400, 401, 403, 404, 409, 413, 415, 422, 503, 507):
        error = error_of(answer(status, type="/problems/of-the-future"), Request(path="/"))
        assert type(error) is not errors.ModelTrainingError


def test_faults_nearest_names_and_retry_after_survive_the_journey():
    faults = [{"path": "body.epochs", "message": "too many"}]
    invalid = error_of(
        answer(422, type="/problems/invalid-request", errors=faults), Request(path="/")
    )
    assert invalid.faults == (errors.Fault("body.epochs", "too many"),)
    unknown = error_of(
        answer(404, type="/problems/pipeline-not-found", looked=["/a"], nearest=["digits"]),
        create_request("digts", {}, {}),
    )
    assert (unknown.name, unknown.looked, unknown.nearest) == ("digts", ("/a",), ("digits",))
    busy = error_of(answer(503, type="/problems/ledger-unavailable"), Request(path="/"))
    assert isinstance(busy, errors.LedgerUnavailable)
    assert busy.retry_after == 7


def test_an_answer_that_is_no_problem_document_is_still_an_error():
    error = error_of(Answer(502, {}, b"<html>"), Request(path="/"))
    assert isinstance(error, errors.Unavailable)
    assert "502" in error.message


JOB = {
    "name": NAME, "id": "x", "pipeline": "digits", "namespace": "default", "executor": "local",
    "owner": "local", "created_at": "2026-01-01T00:00:00.000000Z",
}  # fmt: skip


def test_waiting_ends_at_its_timeout_and_says_that_the_job_goes_on():
    operation = operations.wait(NAME, 0.0, check=False, patience_s=1.0)
    next(operation)
    with pytest.raises(errors.WaitTimedOut, match="it goes on"):
        operation.send(Answer(200, {}, json.dumps({**JOB, "state": "running"}).encode()))


def test_waiting_with_check_raises_with_the_end_of_the_log():
    operation = operations.wait(NAME, None, check=True, patience_s=1.0)
    next(operation)
    failed = {**JOB, "state": "failed", "reason": "Error", "exit_code": 3}
    asked = operation.send(Answer(200, {}, json.dumps(failed).encode()))
    assert isinstance(asked, Send)
    assert asked.request.query == (("tail", "20"),)
    with pytest.raises(errors.JobFailed, match="exit code 3\nlast words") as raised:
        operation.send(Answer(200, {}, b"last words\n"))
    assert raised.value.state == JobState.FAILED


def test_an_answer_of_another_service_is_named_as_such():
    operation = operations.status(NAME, 1.0)
    next(operation)
    with pytest.raises(errors.ModelTrainingError, match="is it a Model Training API"):
        operation.send(Answer(200, {}, b"[]"))


def test_a_lost_connection_is_told_once_for_each_attempt():
    events = performed(following.follow(NAME, {}, 10.0), LogServer(b"abc", 1, [0, 0]))
    assert sum(isinstance(event, Reconnecting) for event in events) == 2
