"""The routes: each says who asks, reads what is asked, calls the service, and answers."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Final
from urllib.parse import urlencode

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import Response

from model_training.access.actions import Action
from model_training.access.asked import ASKED, Asked
from model_training.access.guard import unknown_job
from model_training.access.principals import Principal
from model_training.api import answers
from model_training.api.docs_page import render_page
from model_training.api.frames import EventFrames, text_frames
from model_training.api.metrics import MEDIA_TYPE, Metrics
from model_training.api.output_files import OutputFiles
from model_training.api.queries import (
    LogQuery,
    accepts,
    parse_range,
    read_delete_query,
    read_list_query,
    read_log_query,
    read_no_query,
    read_submit_query,
)
from model_training.api.rechecks import Permit
from model_training.api.streaming import FollowedEvents, Streamed, Streams
from model_training.api.submissions import read_body, read_submission
from model_training.errors import MalformedRequest
from model_training.names import is_job_name
from model_training.service import TrainingService


async def principal(request: Request) -> Principal:
    """Who sent the request.

    Raises:
        Unauthenticated: nobody we know.
        AccessUnavailable: who it is cannot be told now.
        MalformedRequest: it says so twice, or where everybody reads it.
        TooManyRequests: they ask for more than their share.
    """
    state = request.scope["state"]
    ASKED.set(
        Asked(state["request_id"], request.method, request.scope["route"].path, state["client"])
    )
    _refuse_ambiguity(request)
    who: Principal = await request.app.state.authenticator.authenticate(request.headers)
    state["principal"] = who.id
    request.app.state.shares.take_request(who)
    return who


def _refuse_ambiguity(request: Request) -> None:
    """Two credentials may be of two people, and whoever checks the one may not see the other."""
    if len(request.headers.getlist("authorization")) > 1:
        raise MalformedRequest("The request has more than one Authorization header.")
    if named := CREDENTIAL_HEADERS.intersection(request.headers):
        name = min(named)
        raise MalformedRequest(f"The header {name} is not read here; send Authorization alone.")
    if CREDENTIAL_OPTIONS.intersection(name.lower() for name in request.query_params):
        raise MalformedRequest(
            "The URL holds a credential, which logs on its way keep; send it as Authorization: "
            "Bearer TOKEN, and take this one for known to others."
        )


# Where other services take a credential, and where this one must not be thought to.
CREDENTIAL_HEADERS: Final = frozenset({"proxy-authorization", "x-api-key", "x-auth-token"})
CREDENTIAL_OPTIONS: Final = frozenset({"access_token", "token", "api_key", "apikey", "jwt"})

Who = Annotated[Principal, Depends(principal)]


def query_of(request: Request) -> bytes:
    """The query string as it was sent."""
    query: bytes = request.scope["query_string"]
    return query


def job_name(request: Request) -> str:
    """The job's name in the path.

    Raises:
        JobNotFound: it can be none; nobody is asked then.
    """
    name: str = request.path_params["name"]
    if not is_job_name(name):
        raw: bytes = request.scope["raw_path"]
        raise unknown_job(raw.split(b"/")[2].decode("latin-1"))
    return name


class TrainingJobRoutes:
    """Training jobs, their logs and outputs."""

    def __init__(self, service: TrainingService, streams: Streams) -> None:
        self._service = service
        self._streams = streams
        self._frames = EventFrames()
        self._output_files = OutputFiles(streams)

    async def submit(self, request: Request, who: Who) -> Response:
        """POST /training-jobs."""
        keys = request.headers.getlist("idempotency-key")
        asked = read_submit_query(query_of(request), keys)
        submission = read_submission(asked, await read_body(request))
        if asked.dry_run:
            return answers.as_json(await self._service.plan(who, submission))
        job, is_new = await self._service.submit(who, submission)
        place = {"Location": f"/training-jobs/{job.name}/status"}
        return answers.as_json(job.to_json(), status=201 if is_new else 200, headers=place)

    async def list_jobs(self, request: Request, who: Who) -> Response:
        """GET /training-jobs."""
        asked = read_list_query(query_of(request))
        lines = accepts(request.headers, answers.LINES)
        if asked.limit is None:
            pages = await self._service.all_jobs(who, asked.job_filter)
            return answers.all_jobs(self._streams, pages, lines=lines)
        page = await self._service.page(
            who, asked.job_filter, limit=asked.limit, cursor=asked.cursor
        )
        link = next_page(request, page.next_cursor) if page.next_cursor else None
        return answers.job_page(page.jobs, lines=lines, link=link)

    async def log(self, request: Request, who: Who) -> Response:
        """GET /training-jobs/NAME."""
        asked = read_log_query(query_of(request), request.headers)
        name = job_name(request)
        if asked.follow:
            permit = Permit(who, name, self._asking_again(request, name))
            return await self._follow(permit, asked)
        answer = await self._service.read_log(who, name, asked.selection)
        return answers.log(self._streams, answer, asked)

    async def _follow(self, permit: Permit, asked: LogQuery) -> Response:
        who, name = permit.principal, permit.name
        self._streams.admit_follower(who)
        try:
            followed = await self._service.follow_log(who, name, asked.selection)
        except BaseException:  # whatever it was: the place is free again
            self._streams.dismiss_follower(who)
            raise
        headers = answers.log_headers(followed.job, followed.position)
        if asked.as_events:
            headers |= {
                "Content-Type": answers.EVENTS,
                "X-Accel-Buffering": "no",
            }  # no nginx holds it
            frames = self._frames.of(followed)
            return FollowedEvents(self._streams, frames, headers, permit=permit)
        headers["Content-Type"] = answers.TEXT
        return Streamed(self._streams, text_frames(followed), headers, permit=permit)

    def _asking_again(self, request: Request, name: str) -> Callable[[], Awaitable[None]]:
        """Whether the sender is still who they were, and may still read the log."""
        known = request.app.state
        credential = {"authorization": request.headers.get("authorization", "")}
        asked = ASKED.get()

        async def ask() -> None:
            ASKED.set(asked)  # it is asked in the context of whoever followed first
            who: Principal = await known.authenticator.authenticate(credential)
            await self._service.permit_log(who, name)

        return ask

    async def delete(self, request: Request, who: Who) -> Response:
        """DELETE /training-jobs/NAME."""
        wait_s = read_delete_query(query_of(request))
        job = await self._service.delete(who, job_name(request), wait_s=wait_s)
        if job is None:
            return Response(status_code=204)
        return answers.as_json(job.to_json(), status=202)

    async def status(self, request: Request, who: Who) -> Response:
        """GET /training-jobs/NAME/status."""
        read_no_query(query_of(request))
        job = await self._service.status(who, job_name(request))
        return answers.as_json(job.to_json())

    async def stop(self, request: Request, who: Who) -> Response:
        """POST /training-jobs/NAME/stop."""
        read_no_query(query_of(request))
        job = await self._service.stop(who, job_name(request))
        return answers.as_json(job.to_json(), status=200 if job.state.is_terminal else 202)

    async def list_outputs(self, request: Request, who: Who) -> Response:
        """GET /training-jobs/NAME/outputs."""
        read_no_query(query_of(request))
        files = await self._service.outputs(who, job_name(request))
        return answers.as_json([answers.output_file(file) for file in files])

    async def output(self, request: Request, who: Who) -> Response:
        """GET /training-jobs/NAME/outputs/PATH."""
        read_no_query(query_of(request))
        path: str = request.path_params["path"]
        opened = await self._service.open_output(who, job_name(request), path)
        return await self._output_files.answer(opened, parse_range(request.headers))


class PipelineRoutes:
    """Training pipelines."""

    def __init__(self, service: TrainingService) -> None:
        self._service = service

    async def list_pipelines(self, request: Request, who: Who) -> Response:
        """GET /pipelines."""
        read_no_query(query_of(request))
        pipelines = await self._service.pipelines(who)
        return answers.as_json([pipeline.to_json() for pipeline in pipelines])

    async def pipeline(self, request: Request, who: Who) -> Response:
        """GET /pipelines/PIPELINE."""
        read_no_query(query_of(request))
        pipeline = await self._service.pipeline(who, request.path_params["pipeline"])
        return answers.as_json(pipeline.to_json())


class ServiceRoutes:
    """The service itself: probes, counts and its own description."""

    def __init__(
        self,
        service: TrainingService,
        streams: Streams,
        metrics: Metrics,
        is_ready: Callable[[], bool],
    ) -> None:
        self._service = service
        self._streams = streams
        self._metrics = metrics
        self._is_ready = is_ready

    async def livez(self) -> Response:
        """GET /livez: the process answers."""
        return answers.text("ok\n")

    async def readyz(self) -> Response:
        """GET /readyz: what it answers is true."""
        if self._is_ready():
            return answers.text("ok\n")
        return answers.text("not ready\n", status=503)

    async def metrics(self, request: Request, who: Who) -> Response:
        """GET /metrics."""
        read_no_query(query_of(request))
        jobs = await self._service.counts(who)
        text = self._metrics.text(jobs, self._streams.followers)
        return Response(text, media_type=MEDIA_TYPE)

    async def openapi(self, request: Request, who: Who) -> Response:
        """GET /openapi.json."""
        read_no_query(query_of(request))
        await self._service.permit(who, Action.READ)
        return answers.as_json(request.app.openapi())

    async def docs(self, request: Request, who: Who) -> Response:
        """GET /docs."""
        read_no_query(query_of(request))
        await self._service.permit(who, Action.READ)
        return answers.page(render_page(request.app.openapi()))


def next_page(request: Request, cursor: str) -> str:
    """Where the next page is: the same list, from the cursor on."""
    options = [
        (name, value) for name, value in request.query_params.multi_items() if name != "cursor"
    ]
    return f"/training-jobs?{urlencode([*options, ('cursor', cursor)])}"
