"""The scenarios that every executor plays alike: what a person does, what a job does, what is seen.

Each gives a trace. ``promised.json`` holds the traces that are promised; ``differences.py`` names
everything in which an executor may differ from them. A job's Python text stands beside its claim;
``pipelines/play.py`` runs it and has the words used in it (say, show, keep, wait, ...).
"""

import asyncio
import json
from typing import Any

from model_training import AsyncClient
from model_training.errors import InvalidRequest, WaitTimedOut
from tests.parity.stage import Scenario, Stage, Trace, head, moment, path_of, shown

SCENARIOS: dict[str, Scenario] = {}
HOLD = "time.sleep(3)"  # so long that everybody has seen it run
LATE_S = 20  # so long that a job has begun to wait, on a node that starts a dozen pods at once too
TICK = "time.sleep(0.5)"


def scenario(play: Scenario) -> Scenario:
    """Add one, named as its function."""
    SCENARIOS[play.__name__.replace("_", " ")] = play
    return play


def ends(code: str | None, parameters: dict[str, object] | None = None, **options: Any) -> Scenario:
    """A job runs to its end; how it ended, and its log, are traced."""

    async def play(stage: Stage) -> Trace:
        job = await stage.create(code, parameters, **options)
        return {"how": stage.how(await stage.end(job)), "log": await stage.log(job)}

    return play


def keeps(code: str) -> Scenario:
    """A job runs to its end; how it ended, and its outputs, are traced."""

    async def play(stage: Stage) -> Trace:
        job = await stage.create(code)
        return {"how": stage.how(await stage.end(job)), "outputs": await stage.outputs(job)}

    return play


def stops(code: str, **options: Any) -> Scenario:
    """A job runs until it is stopped; its states, how it ended and its log are traced."""

    async def play(stage: Stage) -> Trace:
        job = await stage.create(code, **options)
        following = await stage.watch_running(job)
        await job.stop()
        return {"how": stage.how(await stage.end(job)), "followed": await following}

    return play


def refused(body: dict[str, object] | None = None, pipeline: str = "play", **o: Any) -> Scenario:
    """A request is refused; with what is traced."""
    return lambda stage: stage.fault(stage.client.create(pipeline, body, **o))


def refused_query(*query: tuple[str, str], body: bytes = b"{}", **headers: str) -> Scenario:
    """The same for what the client does not send by itself."""
    return lambda stage: stage.fault(stage.post(body, query, **headers))


# Outcomes

SCENARIOS |= {
    "exit 0": ends("pass"),
    "exit 1": ends("sys.exit(1)"),
    "exit 3 with output": ends("say('half done\\n'); sys.exit(3)"),
    "exit 255": ends("os._exit(255)"),
    "exit 137 by itself": ends("os._exit(137)"),
    "words at the exit": ends("raise SystemExit('no data')"),
    "killed by SIGKILL": ends("say('a\\n'); os.kill(os.getpid(), signal.SIGKILL)"),
    "killed by SIGSEGV": ends("os.kill(os.getpid(), signal.SIGSEGV)"),
    "killed by SIGTERM of its own": ends("os.kill(os.getpid(), signal.SIGTERM)"),
    "a child fails": ends("show(ask_python('exit(9)'))"),
    "a child is killed": ends("show(ask_python('import os; os.abort()'))"),
    "closes its output": ends("say('last\\n'); os.close(1); os.close(2); time.sleep(0.2)"),
    "a descendant outlives it": ends(
        "say('parent\\n')\n"
        "if os.fork() == 0:\n"
        "    signal.signal(signal.SIGTERM, lambda *_: (say('last words\\n'), os._exit(0)))\n"
        "    say('child\\n')\n"
        "    time.sleep(30)\n"
        "    os._exit(0)\n"
        "time.sleep(0.5)"
    ),
    "no such command": ends(None, pipeline="lost"),
    "it begins in its pipeline's folder": ends("show(os.listdir())"),
}


@scenario
async def states_of_a_success(stage: Stage) -> Trace:
    job = await stage.create(f"say('one\\n'); {HOLD}; say('two\\n')")
    return {"followed": await stage.watch(job), "how": stage.how(await job.status())}


@scenario
async def states_of_a_failure(stage: Stage) -> Trace:
    job = await stage.create(f"{HOLD}; sys.exit(4)")
    return {"followed": await stage.watch(job), "how": stage.how(await job.status())}


@scenario
async def the_whole_record(stage: Stage) -> Trace:
    options = {"timeout": "90s", "grace": 5}
    job = await stage.create("pass", {"seed": 7, "nested": {"b": [1, None]}}, **options)
    return {"created": stage.record(job.record), "ended": stage.record(await stage.end(job))}


@scenario
async def the_record_of_a_long_pipeline_name(stage: Stage) -> Trace:
    job = await stage.create("pass", pipeline="the-longest-name-of-a-pipeline1")
    ended = await stage.end(job)
    return {"name": stage.named(job.name), "length": len(job.name), "how": stage.how(ended)}


@scenario
async def times_of_a_job(stage: Stage) -> Trace:
    job = await stage.end(await stage.create("time.sleep(1.5)"))
    assert job.started_at
    assert job.finished_at
    assert job.duration_s is not None
    moments = (job.started_at, job.finished_at)
    return {
        "in order": job.started_at < job.finished_at,
        "lasted": job.duration_s >= 1,
        "more than whole seconds": any(each.microsecond for each in moments),
    }


@scenario
async def waiting_with_a_check(stage: Stage) -> Trace:
    job = await stage.create("say('why\\n'); sys.exit(6)")
    await stage.end(job)
    fault = await stage.fault(job.wait(check=True))
    return {"error": fault["error"]}


@scenario
async def waiting_for_too_short(stage: Stage) -> Trace:
    job = await stage.create("wait()")
    await stage.in_state(job, "running")
    try:
        await job.wait(timeout=0.1)
    except WaitTimedOut:
        return {"late": True, "stopped": str((await job.stop()).state)}
    return {"late": False}


# Timeouts

SCENARIOS |= {
    "in time": ends("say('done\\n')", timeout="60s"),
    "timeout": ends("wait()", timeout=LATE_S),
    "timeout and a clean end": ends(
        "on_term(\"say('saved\\\\n'); keep('model'); os._exit(0)\"); wait()", timeout=LATE_S
    ),
    "timeout and an exit code": ends("on_term('os._exit(5)'); wait()", timeout=LATE_S),
    "timeout ignored": ends("ignore(); wait()", timeout=LATE_S, grace=1),
}


# Parameters

WAYS = """
given = json.loads(os.environ["MODEL_TRAINING_PARAMETERS"])
given.pop("CODE")
file = Path(os.environ["MODEL_TRAINING_PARAMETERS_FILE"]).read_text()
show({
    "variables": {name: environment()[name] for name in given},
    "json": given,
    "the same line in the file": file == environment()["MODEL_TRAINING_PARAMETERS"],
})
"""
BIG = """
import hashlib
text = environment()["BIG"]
show([len(text), hashlib.sha256(text.encode()).hexdigest()])
"""

SCENARIOS |= {
    "parameters of every type": ends(
        WAYS,
        {"s": "text", "i": 20, "f": 0.5, "t": True, "n": None, "o": {"b": 1, "a": [2]}, "l": []},
    ),
    "numbers as they are": ends(
        WAYS, {"big": 2**80, "small": 1e-300, "minus": -0.0, "whole": 20.0, "large": 1e22}
    ),
    "texts as they are": ends(
        WAYS,
        {
            "dollars": "$HOME ${HOME} $(HOME) $$ $$(HOME) $",
            "quotes": "\"double\" 'single' `back` \\ % {{}}",
            "lines": "one\ntwo\r\n\n three\ttab ",
            "spaces": "  both ends  ",
            "empty": "",
            "unicode": "Größe 数 🎲 e\u0301 \u0085 \u2028",
            "control": "\x01\x1b[31m\x7f",
            "yaml": "yes: - !!str &a *a # no",
        },
    ),
    "a parameter that looks like JSON": ends(WAYS, {"j": '{"a": 1}', "k": "null", "n": "1e3"}),
    "names of parameters": ends(WAYS, {"_": 1, "a_B9": 2, "CamelCase": 3, "x" * 128: 4}),
    "almost too much": ends(BIG, {"BIG": "é" * 49_500}),
    "no parameters at all": ends(None),
    "declared parameters and defaults": ends(None, {"data": "a/b", "epochs": 3}, pipeline="typed"),
    "declared parameters, all given": ends(
        None,
        {
            "extra": {"deep": {"er": [1, "$x"]}}, "note": "two words", "layers": [], "rate": 5,
            "kind": "tree", "shuffle": False, "epochs": 1000, "data": "x",
        },
        pipeline="typed",
    ),
    "flags that begin with a dash": ends(
        None, {"data": "x", "rate": -0.5, "note": "-v --help $(id)"}, pipeline="typed"
    ),
}  # fmt: skip


@scenario
async def the_whole_environment(stage: Stage) -> Trace:
    job = await stage.create("del os.environ['CODE']; show(environment())", {"seed": 1})
    await stage.end(job)
    [line] = [piece async for piece in job.logs()]
    seen: dict[str, str] = json.loads(line)
    return {name: stage.variable(name, value) for name, value in seen.items() if name != "CODE"}


@scenario
async def fixed_variables_of_a_pipeline(stage: Stage) -> Trace:
    job = await stage.create(None, {"data": "a"}, pipeline="typed")
    ended = await stage.end(job)
    return {"timeout": ended.timeout_s, "parameters": ended.parameters, "how": stage.how(ended)}


@scenario
async def who_the_job_is(stage: Stage) -> Trace:
    job = await stage.create(
        "import stat\n"
        "umask = os.umask(0); os.umask(umask)\n"
        "mode = OUTPUT.stat().st_mode\n"
        "keep('file')\n"
        "show({\n"
        "    'umask': oct(umask),\n"
        "    'output mode': stat.filemode(mode),\n"
        "    'file mode': stat.filemode((OUTPUT / 'file').stat().st_mode),\n"
        "    'is first process': os.getpid() == 1,\n"
        "    'standard input': os.read(0, 1).decode(),\n"
        "    'terminal': os.isatty(1), 'empty output folder': os.listdir(OUTPUT) == ['file'],\n"
        "    'signals': [str(signal.getsignal(n)) for n in (signal.SIGTERM, signal.SIGPIPE)],\n"
        "})"
    )
    await stage.end(job)
    [line] = [piece async for piece in job.logs()]
    return json.loads(line)


SCENARIOS |= {
    "too much": refused({"BIG": "é" * 50_000}),
    "reserved names": refused({"PATH": 1, "LD_PRELOAD": 2, "MODEL_TRAINING_X": 3, "http_proxy": 4}),
    "impossible names": refused({"": 1, "a-b": 2, "9": 3, "ü": 4, "y" * 129: 5}),
    "U+0000": refused({"a": "x\0", "b": [{"c": "\0"}], "d": {"\0": 1}}),
    "declared: everything wrong": refused(
        {"epochs": 0, "rate": "x", "kind": "forest", "shuffle": 1, "layers": {}, "epoch": 3},
        pipeline="typed",
    ),
    "declared: null and fractions": refused(
        {"data": None, "epochs": 20.0, "note": 1, "extra": []}, pipeline="typed"
    ),
    "declared: pattern": refused({"data": "../etc"}, pipeline="typed"),
    "twice the same key": refused_query(("pipeline", "play"), body=b'{"a": 1, "a": 2}'),
    "NaN": refused_query(("pipeline", "play"), body=b'{"a": NaN}'),
    "no JSON": refused_query(("pipeline", "play"), body=b"{"),
    "no object": refused_query(("pipeline", "play"), body=b"[1]"),
    "a lone surrogate": refused_query(("pipeline", "play"), body=b'{"a": "\\ud800"}'),
    "another media type": refused_query(("pipeline", "play"), media_type="text/plain"),
    "too large a body": refused_query(("pipeline", "play"), body=b" " * 5_000_000 + b"{}"),
}


# Requests

SCENARIOS |= {
    "no pipeline named": refused_query(),
    "two names of one pipeline": refused_query(("pipeline", "play"), ("pipeline_step", "play")),
    "an unknown pipeline": refused(pipeline="tiped"),
    "an unknown pipeline, like none": refused(pipeline="qqqqqqq"),
    "bad pipeline names": refused(pipeline="Under_Score"),
    "a reserved pipeline name": refused(pipeline="api"),
    "too long a pipeline name": refused(pipeline="p" * 32),
    "bad options": refused(timeout="0", grace="-1", cpu="0", memory="1", gpu="x"),
    "unknown options": refused_query(("pipeline", "play"), ("time_out", "3"), ("x", "")),
    "options given twice": refused_query(("pipeline", "play"), ("gpu", "0"), ("gpu", "0")),
    "a bad key": refused_query(("pipeline", "play"), **{"idempotency-key": "k" * 256}),
    "faults of options and parameters together": refused(
        {"epochs": -1}, pipeline="typed", timeout="soon"
    ),
}


@scenario
async def more_than_there_is(stage: Stage) -> Trace:
    try:
        job = await stage.create("pass", cpu=1000)
    except InvalidRequest as error:
        return {"refused": [fault.path for fault in error.faults]}
    while (record := await job.status()).reason != "Unschedulable":
        await asyncio.sleep(0.1)
    await job.stop()
    ended = stage.how(await stage.end(job))
    return {"waits": [str(record.state), record.reason], "stopped": ended}


@scenario
async def a_job_that_is_not_there(stage: Stage) -> Trace:
    client, name = stage.client, "model-training-play-00000000-0000-4000-8000-000000000000"
    return {
        "status": await stage.fault(client.status(name)),
        "log": await stage.fault(anext(client.logs(name))),
        "events": await stage.fault(anext(client.events(name))),
        "outputs": await stage.fault(client.outputs(name)),
        "output": await stage.fault(stage.ask(f"/training-jobs/{name}/outputs/a")),
        "stop": await stage.fault(client.stop(name)),
        "delete": await stage.fault(client.delete(name)),
        "outside the prefix": await stage.fault(client.delete("kube-system")),
    }


@scenario
async def nobody_we_know(stage: Stage) -> Trace:
    async with AsyncClient(stage.client.address, token="wrong") as stranger:
        return {
            "list": await stage.fault(anext(stranger.list())),
            "create": await stage.fault(stranger.create("play")),
            "pipelines": await stage.fault(stranger.pipelines()),
        }


@scenario
async def an_older_name_and_capitals(stage: Stage) -> Trace:
    answer = await stage.post(b"", (("pipeline_step", "Roll"), ("dry_run", "true")))
    return {"name": stage.named(json.loads(answer.body)["name"]), "status": answer.status}


@scenario
async def a_plan_starts_nothing(stage: Stage) -> Trace:
    before = [job.name async for job in stage.client.list(pipeline="lost", limit=1)]
    plan = await stage.client.plan("typed", {"data": "plan"}, idempotency_key="planned")
    job = await stage.create(None, {"data": "plan"}, pipeline="typed", idempotency_key="planned")
    after = [job.name async for job in stage.client.list(pipeline="lost", limit=1)]
    return {
        "the name it would have": plan["name"] == job.name,
        "warnings": plan["warnings"],
        "keys": sorted(plan),
        "started": before != after,
        "how": stage.how(await stage.end(job)),
    }


@scenario
async def a_wrong_plan(stage: Stage) -> Trace:
    return await stage.fault(stage.client.plan("typed", {"epochs": 0}))


@scenario
async def pipelines_and_their_declarations(stage: Stage) -> Trace:
    known = {pipeline.name: pipeline for pipeline in await stage.client.pipelines()}
    typed = await stage.client.pipeline("typed")
    return {
        "ours": [name for name in ("lost", "play", "roll", "roll-2", "typed") if name in known],
        "description": typed.description,
        "arguments": typed.arguments,
        "parameters": typed.parameters,
        "job": typed.job,
        "problems": [list(map(str, (fault.path, fault.message))) for fault in typed.problems],
        "unknown": await stage.fault(stage.client.pipeline("no-such")),
    }


# Idempotency


@scenario
async def the_same_key_is_the_same_job(stage: Stage) -> Trace:
    one = await stage.create("wait()", {"a": 1}, idempotency_key="same")
    two = await stage.create("wait()", {"a": 1}, idempotency_key="same")
    following = await stage.watch_running(one)
    three = await stage.create("wait()", {"a": 1}, idempotency_key="same")
    await one.stop()
    await stage.end(one)
    await following
    four = await stage.create("wait()", {"a": 1}, idempotency_key="same")
    names = {job.name for job in (one, two, three, four)}
    return {"jobs": len(names), "states": [str(job.record.state) for job in (three, four)]}


@scenario
async def the_same_key_for_another_request(stage: Stage) -> Trace:
    job = await stage.create("pass", {"a": 1}, idempotency_key="other")
    client, key = stage.client, {"idempotency_key": "other"}
    trace = {
        "parameters": await stage.fault(client.create("play", {"CODE": "pass", "a": 2}, **key)),
        "pipeline": await stage.fault(client.create("roll", {"CODE": "pass", "a": 1}, **key)),
        "options": await stage.fault(
            client.create("play", {"CODE": "pass", "a": 1}, timeout=99, **key)
        ),
    }
    return trace | {"how": stage.how(await stage.end(job))}


@scenario
async def a_key_is_free_again_after_the_job_is_deleted(stage: Stage) -> Trace:
    one = await stage.create("say('one\\n')", idempotency_key="again")
    await stage.end(one)
    gone = await one.delete(wait=60)
    two = await stage.create("say('two\\n')", idempotency_key="again")
    ended = await stage.end(two)
    return {
        "gone": gone is None,
        "same name": one.name == two.name,
        "how": stage.how(ended),
        "log": await stage.log(two),
    }


@scenario
async def a_repeat_by_hand(stage: Stage) -> Trace:
    body = json.dumps({"CODE": "pass"}).encode()
    keys = {"idempotency-key": "by hand"}
    answers = [await stage.post(body, **keys) for _ in range(2)]
    records = [json.loads(answer.body) for answer in answers]
    stage.jobs[records[0]["name"]] = records[0]["id"]
    return {
        "statuses": [answer.status for answer in answers],
        "same": records[0]["id"] == records[1]["id"],
        "location": stage.named(answers[0].headers["location"]),
    }


# Logs

SCENARIOS |= {
    "nothing printed": ends("pass"),
    "empty lines": ends("say('\\n\\na\\n\\n\\n')"),
    "no newline at the end": ends("say('a\\nb')"),
    "bytes that are no text": ends("say(b'\\xff\\xfe\\x00\\x01\\n\\xc3\\n')"),
    "every byte but the carriage return": ends(
        "say(bytes(b for b in range(256) if b != 13) * 40 + b'\\n')"
    ),
    "a carriage return before the newline": ends("say('dos\\r\\nunix\\n')"),
    "a progress bar": ends("say('10%\\r20%\\r100%\\nend\\r')"),
    "lines of JSON": ends("show({'a': 1}); show(1.5); show('x'); say('7\\n[]\\n')"),
    "lines that look like the log's own": ends(
        "say('2026-11-25T00:00:00.000000Z stdout F x\\n1.5\\nevent: end\\n\\ndata: {}\\n\\n')"
    ),
    "a line of one MiB": ends("say(b'x' * (1 << 20) + b'\\n')"),
    "lines around 16 KiB": ends(
        "for size in (16383, 16384, 16385, 32768): say(b'y' * size + b'\\n')"
    ),
    "three MiB": ends(
        "for n in range(200): say(b''.join(b'%08d 0123456\\n' % i for i in range(n, n + 1000)))"
    ),
    "errors go to the same log": ends(f"say('out\\n'); {TICK}; say('err\\n', 2); {TICK}; say('.')"),
    "control sequences": ends("say('\\x1b[31mred\\x1b[0m \\x07\\n')"),
}
ORDER = "for n in range(3000): say('%d\\n' % n, 1 + n % 2)"
TEN = "for n in range(10): say('line %d\\n' % n)"


@scenario
async def two_streams_at_once(stage: Stage) -> Trace:
    job = await stage.create(ORDER)
    await stage.end(job)
    numbers = list(map(int, b"".join([p async for p in job.logs()]).split()))
    return {
        "all": sorted(numbers) == list(range(3000)),
        "each in order": all(
            [n for n in numbers if n % 2 == s] == list(range(s, 3000, 2)) for s in (0, 1)
        ),
        "both in order": numbers == list(range(3000)),
    }


@scenario
async def parts_of_a_log(stage: Stage) -> Trace:
    job = await stage.create(TEN + "\nsay('rest')")
    await stage.end(job)
    parts: dict[str, dict[str, Any]] = {
        "tail 2": {"tail": 2}, "tail 0": {"tail": 0}, "tail 99": {"tail": 99},
        "since an hour": {"since": "1h"}, "since a time before": {"since": "2020-01-01T00:00:00Z"},
        "since a time to come": {"since": "2999-01-01T00:00:00Z"}, "attempt 1": {"attempt": 1},
        "tail 3 since an hour": {"tail": 3, "since": "1h"},
    }  # fmt: skip
    trace = {name: await stage.log(job, **part) for name, part in parts.items()}
    return trace | {
        "attempt 2": await stage.fault(anext(job.logs(attempt=2))),
        "bad": await stage.fault(stage.ask(path_of(job), query=(("tail", "-1"), ("since", "x")))),
    }


@scenario
async def since_between_two_lines(stage: Stage) -> Trace:
    job = await stage.create("say('early\\n'); time.sleep(2); say('late\\n')")
    await stage.end(job)
    stamped = b"".join([piece async for piece in job.logs(timestamps=True)])
    early, late = (line.split(b" ")[0].decode() for line in stamped.splitlines())
    return {
        "from the first": await stage.log(job, since=early),
        "from the second": await stage.log(job, since=late),
        "stamped": stage.named(stamped.decode()),
        "in order": early < late,
    }


@scenario
async def timestamps_of_odd_lines(stage: Stage) -> Trace:
    job = await stage.create(f"say('a\\n\\nb'); {TICK}; say('c\\nd')")
    await stage.end(job)
    stamped = b"".join([piece async for piece in job.logs(timestamps=True)])
    return {"stamped": stage.named(stamped.decode())}


@scenario
async def ranges_of_a_log(stage: Stage) -> Trace:
    job = await stage.create(TEN)
    await stage.end(job)
    trace: Trace = {}
    for asked in ("0-3", "5-", "-5", "60-999", "0-0", "x", "3-1"):
        answer = await stage.ask(path_of(job), headers={"range": f"bytes={asked}"})
        trace[asked] = head(answer, "content-range", "content-length", "model-training-position")
        trace[asked]["body"] = shown(answer.body)
    beyond = {"range": "bytes=70-"}
    trace["70-"] = await stage.fault(stage.ask(path_of(job), headers=beyond))
    tail = (("tail", "1"),)
    trace["with tail"] = await stage.fault(stage.ask(path_of(job), headers=beyond, query=tail))
    return trace


@scenario
async def headers_of_a_log(stage: Stage) -> Trace:
    job = await stage.create("say('abc\\n'); sys.exit(2)")
    await stage.end(job)
    names = (
        "content-type", "content-length", "accept-ranges", "cache-control",
        "model-training-state", "model-training-exit-code", "model-training-position",
        "model-training-gaps",
    )  # fmt: skip
    return {
        "GET": head(await stage.ask(path_of(job)), *names),
        "HEAD": head(await stage.ask(path_of(job), method="HEAD"), *names),
        "follow": head(await stage.ask(path_of(job), query=(("follow", "true"),)), *names),
    }


@scenario
async def following_from_before_the_start(stage: Stage) -> Trace:
    job = await stage.create(f"say('first\\n'); {HOLD}; say(b'\\xff last')")
    text = stage.ask(path_of(job), query=(("follow", "true"),))
    events, answer = await asyncio.gather(stage.watch(job), text)
    return {"events": events, "text": shown(answer.body)}


@scenario
async def following_after_the_end(stage: Stage) -> Trace:
    job = await stage.create(TEN + "\nsys.exit(5)")
    ended = await stage.end(job)
    assert ended == job.record
    job.record = ended
    return {"whole": await stage.watch(job), "tail": await stage.watch(job, tail=2)}


@scenario
async def following_goes_on_from_a_position(stage: Stage) -> Trace:
    job = await stage.create(TEN)
    await stage.end(job)
    trace: Trace = {}
    for position in ("1.0", "1.7", "1.70", "1.71", "2.0", "x"):
        headers = {"accept": "text/event-stream", "last-event-id": position}
        asked = stage.ask(path_of(job), headers=headers)
        if position in ("1.71", "2.0", "x"):
            trace[position] = await stage.fault(asked)
        else:
            answer = await asked
            events = [e for e in answer.body.decode().split("\n\n") if e.startswith("event: log")]
            trace[position] = {"events": [event.split("\n") for event in events]}
    return trace


@scenario
async def progress_without_a_newline(stage: Stage) -> Trace:
    job = await stage.create("say('50%'); time.sleep(4); say('\\r100%\\n')")
    await stage.in_state(job, "running")
    seen = b""
    for _ in range(10):
        seen = b"".join([piece async for piece in job.logs()])
        if seen:
            break
        await asyncio.sleep(0.2)
    await stage.end(job)
    return {"while it ran": shown(seen), "in the end": await stage.log(job)}


@scenario
async def a_line_is_seen_while_the_job_runs(stage: Stage) -> Trace:
    job = await stage.create("say('step 1\\n'); on_term(\"say('bye\\\\n'); os._exit(0)\"); wait()")
    await stage.printed(job)
    await stage.in_state(job, "running")  # a line can be there before the word of its start
    seen = await stage.log(job)
    answer = await stage.ask(path_of(job))
    await job.stop()
    await stage.end(job)
    return {
        "then": seen,
        "head": head(answer, "model-training-state", "model-training-exit-code"),
        "in the end": await stage.log(job),
    }


# Outputs

SCENARIOS |= {
    "no outputs": keeps("pass"),
    "outputs in folders": keeps(
        "keep('model.bin', bytes(range(256)) * 5000); keep('a/b/c.json', b'{}'); keep('empty')"
    ),
    "outputs of a failure": keeps("keep('half', b'1'); sys.exit(1)"),
    "names of outputs": keeps("keep('Größe 数/a b%20+?#&.txt', b'x'); keep('.hidden'); keep('-x')"),
    "a file that is replaced": keeps(
        "keep('x', b'old'); keep('y', b'n'); os.replace(OUTPUT / 'y', OUTPUT / 'x')"
    ),
    "no regular files": keeps(
        "os.symlink('/etc/passwd', OUTPUT / 'link'); os.mkfifo(OUTPUT / 'pipe')\n"
        "os.mkdir(OUTPUT / 'folder')"
    ),
}  # fmt: skip


@scenario
async def outputs_that_are_not_there(stage: Stage) -> Trace:
    job = await stage.create("keep('d/file'); os.symlink('/etc/passwd', OUTPUT / 'link')")
    await stage.end(job)
    return {
        path: await stage.fault(stage.ask(path_of(job, "outputs") + f"/{path}"))
        for path in ("none", "d", "d/", "link", "d/..%2Ffile", "%2Fetc%2Fpasswd", "..%2F..%2Fx")
    }


@scenario
async def ranges_of_an_output(stage: Stage) -> Trace:
    job = await stage.create("keep('ten', b'0123456789')")
    await stage.end(job)
    path = path_of(job, "outputs", "ten")
    names = ("content-range", "content-length", "accept-ranges", "repr-digest", "content-type")
    trace: Trace = {"whole": head(await stage.ask(path), *names)}
    for asked in ("2-3", "-4", "8-"):
        answer = await stage.ask(path, headers={"range": f"bytes={asked}"})
        trace[asked] = head(answer, *names) | {"body": shown(answer.body)}
    trace["10-"] = await stage.fault(stage.ask(path, headers={"range": "bytes=10-"}))
    return trace


@scenario
async def outputs_while_the_job_runs(stage: Stage) -> Trace:
    job = await stage.create("keep('checkpoint-1', b'111'); wait()")
    await stage.printed(job)
    then = await stage.outputs(job)
    await job.stop()
    await stage.end(job)
    return {"then": then, "after the stop": await stage.outputs(job)}


# Stop

SCENARIOS |= {
    "stop": stops("wait()"),
    "stop and a clean end": stops(
        f"on_term(\"{TICK}; say('saved\\\\n'); keep('model'); os._exit(0)\"); wait()"
    ),
    "stop and an exit code": stops(f"on_term('{TICK}; os._exit(7)'); wait()"),
    "stop ignored": stops("ignore(); wait()", grace=2),
    "stop without grace": stops("ignore(); wait()", grace=0),
    "stop reaches a child only by its parent": stops(
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"on_term('child.terminate(); show(child.wait()); {TICK}; os._exit(3)')\nwait()"
    ),
    "a long farewell": stops(
        "on_term(\"for n in range(2000): say('%d of 2000\\\\n' % n)\\nos._exit(0)\"); wait()"
    ),
}


@scenario
async def stop_twice(stage: Stage) -> Trace:
    job = await stage.create("on_term('time.sleep(1.5); os._exit(0)'); wait()")
    await stage.printed(job)
    states = [str((await job.stop()).state) for _ in range(2)]
    return {"states": states, "how": stage.how(await stage.end(job))}


@scenario
async def stop_after_the_end(stage: Stage) -> Trace:
    job = await stage.create("say('done\\n')")
    await stage.end(job)
    answer = await stage.ask(path_of(job, "stop"), method="POST")
    return {
        "status": answer.status,
        "how": stage.how(await job.status()),
        "log": await stage.log(job),
    }


@scenario
async def stop_at_once(stage: Stage) -> Trace:
    job = await stage.create("wait()")
    answer = await stage.ask(path_of(job, "stop"), method="POST")
    ended = await stage.end(job)
    return {"status": answer.status, "state": str(ended.state), "reason": ended.reason}


# Delete


@scenario
async def delete_an_ended_job(stage: Stage) -> Trace:
    job = await stage.create("say('x\\n'); keep('model', b'1')")
    await stage.end(job)
    gone = await job.delete(wait=120)
    return {
        "gone": gone is None,
        "status": await stage.fault(job.status()),
        "log": await stage.fault(anext(job.logs())),
        "outputs": await stage.fault(job.outputs()),
        "again": await stage.fault(job.delete()),
        "stop": await stage.fault(job.stop()),
    }


@scenario
async def delete_a_running_job(stage: Stage) -> Trace:
    job = await stage.create("on_term('time.sleep(1.5); os._exit(0)'); wait()")
    following = await stage.watch_running(job)
    answers = [await stage.ask(path_of(job), method="DELETE") for _ in range(2)]
    states = [json.loads(answer.body)["state"] for answer in answers]
    seen = stage.how(await job.status())
    return {
        "statuses": [answer.status for answer in answers],
        "states": states,
        "meanwhile": {name: seen[name] for name in ("state", "reason", "exit code")},
        "gone": await stage.gone(job.name),
        "followed": await following,
    }


@scenario
async def delete_and_wait_too_short(stage: Stage) -> Trace:
    job = await stage.create("ignore(); wait()", grace=3)
    await stage.printed(job)
    still = await job.delete(wait=0.2)
    return {
        "still": still and str(still.state),
        "gone": await job.delete(wait=120) is None,
        "status": await stage.fault(job.status()),
    }


@scenario
async def delete_at_once(stage: Stage) -> Trace:
    job = await stage.create("wait()")
    return {
        "gone": await job.delete(wait=120) is None,
        "status": await stage.fault(job.status()),
    }


@scenario
async def a_deleted_job_is_listed_no_more(stage: Stage) -> Trace:
    job = await stage.create("pass", pipeline="roll-2")
    await stage.end(job)
    listed = [each.name async for each in stage.client.list(pipeline="roll-2")]
    await job.delete(wait=120)
    after = [each.name async for each in stage.client.list(pipeline="roll-2")]
    return {"before": job.name in listed, "after": job.name in after}


# Lists


@scenario
async def lists(stage: Stage) -> Trace:
    client = stage.client
    codes = ("pass", "sys.exit(1)", "wait()")
    jobs = [await stage.create(code, {"n": n}, "roll") for n, code in enumerate(codes)]
    other = await stage.create("pass", pipeline="roll-2")
    for job in (*jobs[:2], other):
        await stage.end(job)
    await stage.in_state(jobs[2], "running")

    async def found(limit: int | None = None, **filters: Any) -> list[int]:
        order = [job.name for job in jobs]
        listed = [each.name async for each in client.list(limit=limit, **filters)]
        return [order.index(name) if name in order else -1 for name in listed]

    mine = {"pipeline": "roll"}
    second = moment(jobs[1].record)
    trace: Trace = {
        "exactly this pipeline": await found(**mine),
        "limit": await found(limit=2, **mine),
        "active": await found(state="active", **mine),
        "completed": await found(state="completed", **mine),
        "failed": await found(state="failed", **mine),
        "two states": await found(state=("succeeded", "running"), **mine),
        "created after": await found(created_after=second, **mine),
        "created before": await found(created_before=second, **mine),
        "of another owner": await found(owner="nobody", **mine),
        "of ours": await found(owner=jobs[0].record.owner, **mine),
    }
    await jobs[2].stop()
    await stage.end(jobs[2])
    trace["failed includes stopped"] = await found(state="failed", **mine)
    trace["stopped"] = await found(state="stopped", **mine)
    return trace | {"pages": await _pages(stage), "lines": await _lines(stage)}


async def _pages(stage: Stage) -> list[Trace]:
    """The same list by hand, one job a page, as links lead from one to the next."""
    trace: list[Trace] = []
    query: str | None = "pipeline=roll&limit=2"
    while query:
        answer = await stage.ask(f"/training-jobs?{query}")
        link = answer.headers.get("link")
        trace.append({"jobs": len(json.loads(answer.body)), "link": link is not None})
        query = link.partition("?")[2].partition(">")[0] if link else None
    return trace


async def _lines(stage: Stage) -> Trace:
    headers = {"accept": "application/x-ndjson"}
    answer = await stage.ask("/training-jobs", query=(("pipeline", "roll"),), headers=headers)
    jobs = [json.loads(line) for line in answer.body.splitlines()]
    parameters = [job["parameters"]["n"] for job in jobs]
    return head(answer, "content-type") | {"n": parameters}


@scenario
async def bad_filters(stage: Stage) -> Trace:
    queries = {
        "state": (("state", "done"),), "limit": (("limit", "0"),), "cursor": (("cursor", "x"),),
        "moments": (("created_after", "yesterday"), ("created_before", "2026-02-30T00:00:00Z")),
        "unknown": (("pipelin", "x"),), "pipeline": (("pipeline", "a/b"),),
    }  # fmt: skip
    return {
        name: await stage.fault(stage.ask("/training-jobs", query=query))
        for name, query in queries.items()
    }
