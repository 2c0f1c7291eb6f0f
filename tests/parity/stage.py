"""What a scenario is played on: one server, asked by the shipped client, and what is traced of it.

The normaliser touches names, times and hosts, and here is all of it:

- names: a job's UUID, canonical or short, becomes ``UUID``; the namespace, the image and digests
  only say that there is one;
- times: a moment becomes ``TIME``, a duration ``SECONDS``; that they are there still counts;
- hosts: of PATH, HOME, HOSTNAME, KUBERNETES_*, MODEL_TRAINING_OUTPUT and
  MODEL_TRAINING_PARAMETERS_FILE, and of the field ``output`` of a job, only that they are there;
  of where a pipeline was sought, only that it is told. Paths count as hosts: they say where.

Why a job is pending is only told to be said, but where a scenario waits for it: it depends on
what else there is to do.
"""

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from model_training import AsyncClient
from model_training.client import operations
from model_training.client.events import Ended, Gap, LogBytes, Reset, StateChanged
from model_training.client.exchange import Answer, Request
from model_training.client.jobs import AsyncJob
from model_training.client.requests import job_path
from model_training.client.retries import Retries
from model_training.errors import (
    InvalidRequest,
    JobNotFound,
    ModelTrainingError,
    PipelineNotFound,
)
from model_training.jobs import JobState, TrainingJob, format_time
from model_training.names import short_id
from tests.waiting import until

Trace = dict[str, Any]
PLAY = "play"
PATIENCE_S = 120.0  # for a job to begin or end, on a busy cluster too
SHOWN = 600  # bytes of a log that a trace holds as they are; a longer one by its digest
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@dataclass
class Stage:
    """One server, and the client that asks it."""

    client: AsyncClient
    tmp: Path
    """for what is downloaded"""
    jobs: dict[str, str] = field(default_factory=dict[str, str])
    """of every job started: name to id"""

    # Starting and asking

    async def create(
        self,
        code: str | None = None,
        parameters: Mapping[str, object] | None = None,
        pipeline: str = PLAY,
        **options: Any,
    ) -> AsyncJob:
        """Start a job that runs ``code``."""
        given = dict(parameters or {}) | ({} if code is None else {"CODE": code})
        job = await self.client.create(pipeline, given, **options)
        self.jobs[job.name] = job.record.id
        return job

    async def end(self, job: AsyncJob) -> TrainingJob:
        """Wait for its end."""
        return await job.wait(timeout=PATIENCE_S)

    async def printed(self, job: AsyncJob, words: bytes = b"ready\n") -> None:
        """Follow its log until these words stand in it."""
        seen = b""
        async with asyncio.timeout(PATIENCE_S), aclosing(job.follow()) as pieces:
            async for piece in pieces:
                seen += piece
                if words in seen:
                    return
        msg = f"{job.name} ended without printing {words!r}: {seen[-500:]!r}"
        raise AssertionError(msg)

    async def ask(
        self,
        path: str,
        *,
        method: str = "GET",
        query: tuple[tuple[str, str], ...] = (),
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> Answer:
        """Send what no method of the client sends, through the client all the same."""
        request = Request(
            method=method, path=path, query=query, headers=dict(headers or {}), body=body
        )
        return await self.client._run(operations.ask(request, Retries(10)))

    async def post(
        self,
        body: bytes,
        query: tuple[tuple[str, str], ...] = (("pipeline", PLAY),),
        media_type: str = "application/json",
        **headers: str,
    ) -> Answer:
        """POST /training-jobs with a body that the client would not make."""
        headers = {"content-type": media_type, **headers}
        return await self.ask(
            "/training-jobs", method="POST", query=query, headers=headers, body=body
        )

    # What is traced

    def named(self, text: str) -> str:
        """A text without the identities of jobs and without moments."""
        for job_id in self.jobs.values():
            text = text.replace(job_id, "UUID").replace(short_id(UUID(job_id)), "UUID")
        return _MOMENT.sub("TIME", _UUID.sub("UUID", text))

    def how(self, record: TrainingJob) -> Trace:
        """How a job stands, or ended."""
        return {
            "state": str(record.state),
            "reason": record.reason,
            "message": record.message and self.named(record.message),
            "exit code": record.exit_code,
            "attempt": record.attempt,
            "started": record.started_at is not None,
            "finished": record.finished_at is not None,
            "duration": record.duration_s is not None,
        }

    def record(self, record: TrainingJob) -> Trace:
        """Everything that a job's record says."""
        plain = record.to_json()
        for name in ("created_at", "started_at", "finished_at"):
            plain[name] = plain[name] and self.named(str(plain[name]))
        for name, word in _WORDS.items():
            plain[name] = None if plain[name] is None else word
        if record.state is JobState.PENDING:  # why it waits depends on what else there is to do
            plain |= {"reason": record.reason and "WHY", "message": record.message and "WHY"}
        return plain | {"name": self.named(record.name), "id": self.named(record.id)}

    def variable(self, name: str, value: str) -> str:
        """A variable that a job saw; places on a host are only told to be there."""
        if name in _PLACES or name.startswith("KUBERNETES_"):
            return "PLACE" if value else ""
        return self.named(value)

    async def log(self, job: AsyncJob, **part: Any) -> Trace:
        """The bytes of its log."""
        pieces = [piece async for piece in job.logs(**part)]
        return shown(b"".join(pieces))

    async def outputs(self, job: AsyncJob) -> list[list[object]]:
        """What it keeps: paths, sizes and digests of the bytes that are downloaded."""
        found: list[list[object]] = []
        for output in await job.outputs():
            file = await job.download(output.path, self.tmp / f"{job.name}-{len(found)}")
            data = file.read_bytes()
            assert len(data) == output.size
            found.append([output.path, output.size, digest(data)])
        return found

    async def fault(self, asked: Awaitable[object]) -> Trace:
        """The error that a request is answered with."""
        try:
            answer = await asked
        except ModelTrainingError as error:
            return self._fault(error)
        msg = f"no error, but {answer}"
        raise AssertionError(msg)

    def _fault(self, error: ModelTrainingError) -> Trace:
        problem = dict(error.problem or {})
        trace: Trace = {
            "error": type(error).__name__,
            "type": problem.get("type"),
            "status": problem.get("status"),
        }
        if isinstance(error, InvalidRequest):
            trace["faults"] = [[fault.path, self.named(fault.message)] for fault in error.faults]
        elif isinstance(error, PipelineNotFound):
            trace |= {"looked": bool(error.looked), "nearest": list(error.nearest)}
        else:
            trace["detail"] = self.named(str(problem.get("detail")))
        return trace

    async def watch(self, job: AsyncJob, runs: asyncio.Event | None = None, **part: Any) -> Trace:
        """Its states and its log as a follower is told of them, to the end.

        ``runs`` is set when the follower was told that it runs.
        """
        states, printed = [str(job.record.state)], b""
        trace: Trace = {"gaps": [], "resets": 0}
        following = aclosing(self.client.events(job.name, **part))
        async with asyncio.timeout(PATIENCE_S), following as events:
            async for event in events:
                match event:
                    case StateChanged(state):
                        states += [state] if state != states[-1] else []
                        if runs and state == "running":
                            runs.set()
                    case LogBytes(_, data):
                        printed += data
                    case Gap(_, _, _, why):
                        trace["gaps"].append(why)
                    case Reset():
                        trace["resets"] += 1
                    case Ended(state, reason, _, code):
                        trace["end"] = [state, reason, code]
                    case _:
                        pass
        return trace | {"states": states, "log": shown(printed)}

    async def watch_running(self, job: AsyncJob) -> asyncio.Task[Trace]:
        """Follow a job that prints ``ready``; on return it has, and its follower knows it runs."""
        runs = asyncio.Event()
        following = asyncio.create_task(self.watch(job, runs))
        await self.printed(job)
        async with asyncio.timeout(PATIENCE_S):
            await runs.wait()
        return following

    async def gone(self, name: str) -> Trace:
        """Wait until the job is not known any more; the error that tells so."""

        async def is_gone() -> bool:
            try:
                await self.client.status(name)
            except JobNotFound:
                return True
            return False

        await until(is_gone, within=PATIENCE_S)
        return await self.fault(self.client.status(name))

    async def in_state(self, job: AsyncJob, *states: str) -> TrainingJob:
        """Wait until it stands so."""

        async def look() -> bool:
            return (await job.status()).state in states

        await until(look, within=PATIENCE_S, what=f"{job.name} in {states}")
        return job.record


_WORDS = {
    "namespace": "NAMESPACE",
    "executor": "EXECUTOR",
    "image": "IMAGE",
    "digest": "DIGEST",
    "output": "PLACE",
    "duration_s": "SECONDS",
}

_PLACES = {"PATH", "HOME", "HOSTNAME", "MODEL_TRAINING_OUTPUT", "MODEL_TRAINING_PARAMETERS_FILE"}

Scenario = Callable[[Stage], Awaitable[Trace]]


def shown(data: bytes) -> Trace:
    """Bytes as a person can compare them; many of them by their digest."""
    if len(data) <= SHOWN:
        return {"bytes": repr(data)[2:-1]}
    return {"size": len(data), "sha256": digest(data)}


def digest(data: bytes) -> str:
    """SHA-256, enough of it to tell."""
    return hashlib.sha256(data).hexdigest()[:16]


def path_of(job: AsyncJob, *more: str) -> str:
    """Where the API has a job, or something of it."""
    return job_path(job.name, *more)


def head(answer: Answer, *names: str) -> Trace:
    """The status and some headers of an answer."""
    return {"status": answer.status} | {name: answer.headers.get(name) for name in names}


def moment(record: TrainingJob) -> str:
    """When a job was accepted, as a filter takes it."""
    return format_time(record.created_at)


async def play_all(
    stage: Stage, scenarios: Mapping[str, Scenario], *, at_once: int
) -> dict[str, Trace]:
    """Play scenarios beside each other; one that breaks traces what it broke by."""
    room = asyncio.Semaphore(at_once)

    async def play(scenario: Scenario) -> Trace:
        async with room:
            try:
                return await scenario(stage)
            except Exception as error:  # noqa: BLE001 - it is the trace of this one alone
                return {"broken": f"{type(error).__name__}: {error}"}

    traces = await asyncio.gather(*map(play, scenarios.values()))
    return dict(zip(scenarios, traces, strict=True))
