"""The application: the gate, the routes, and how errors are answered.

The routes come from one table (``operations.py``), from which the OpenAPI document is written,
too, so that neither can hold what the other does not.
"""

import asyncio
from collections.abc import Callable
from typing import cast

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

import model_training
from model_training.access.principals import Authenticator
from model_training.api.hosts import Gate, GateRules
from model_training.api.metrics import Metrics
from model_training.api.openapi import describe
from model_training.api.operations import OPERATIONS
from model_training.api.problems import (
    NO_SUCH_PATH,
    Problem,
    Refused,
    plain_problem,
    problem_of,
)
from model_training.api.rechecks import RECHECK_S, Rechecks
from model_training.api.routes import PipelineRoutes, ServiceRoutes, TrainingJobRoutes
from model_training.api.shares import Shares
from model_training.api.streaming import Streams
from model_training.errors import ModelTrainingError
from model_training.jobs import JSONObject
from model_training.service import TrainingService
from model_training.settings import Settings


def create_app(
    service: TrainingService,
    authenticator: Authenticator,
    *,
    settings: Settings,
    stopping: asyncio.Event,
    recheck_s: float = RECHECK_S,
    access_ready: Callable[[], bool] = lambda: True,
) -> FastAPI:
    """Everything that answers HTTP; serve it by ``deadlines.DeadlineProtocol``.

    Args:
        service: what the routes call.
        authenticator: tells who asks.
        settings: for its limits and host names.
        stopping: set when the server goes; every stream ends then.
        recheck_s: seconds between two questions whether a follower may go on.
        access_ready: whether callers could be decided about.
    """
    shares = Shares(rate=settings.principal_rate, followers=settings.principal_followers)
    streams = Streams(
        stopping,
        max_followers=settings.max_followers,
        shares=shares,
        rechecks=Rechecks(recheck_s),
    )
    metrics = Metrics()
    app = _Application()
    app.state.authenticator = authenticator
    app.state.shares = shares
    _add_routes(
        app,
        TrainingJobRoutes(service, streams),
        PipelineRoutes(service),
        ServiceRoutes(service, streams, metrics, lambda: service.ready and access_ready()),
    )
    app.add_exception_handler(ModelTrainingError, _answer_error)
    app.add_exception_handler(Refused, _answer_refusal)
    app.add_exception_handler(HTTPException, _answer_framework)
    rules = GateRules(
        allowed_hosts=frozenset(settings.allowed_hosts),
        body_limit=settings.body_limit,
        proxies=settings.trusted_proxies,
        origins=frozenset(origin.encode() for origin in settings.cors_origins),
        is_tls=settings.tls_certificate is not None,
    )
    app.add_middleware(Gate, rules, metrics.count)
    return app


class _Application(FastAPI):
    """FastAPI with our own description, and none of its pages (they load from a CDN)."""

    def __init__(self) -> None:
        super().__init__(
            title="Model Training API",
            version=model_training.__version__,
            openapi_url=None,
            docs_url=None,
            redoc_url=None,
            redirect_slashes=False,
        )

    def openapi(self) -> JSONObject:
        """The description of every operation, written once."""
        if self.openapi_schema is None:
            self.openapi_schema = describe(OPERATIONS, self.version)
        return self.openapi_schema


def _add_routes(app: FastAPI, *groups: object) -> None:
    for operation in OPERATIONS:
        [handler] = [
            getattr(group, operation.handler)
            for group in groups
            if hasattr(group, operation.handler)
        ]
        methods = ["GET", "HEAD"] if operation.method == "GET" else [operation.method]
        app.add_api_route(
            operation.path,
            handler,
            methods=methods,
            response_model=None,
            name=operation.operation_id,
        )


async def _answer_error(request: Request, error: Exception) -> Response:
    return _answer(request, problem_of(cast("ModelTrainingError", error)))


async def _answer_refusal(request: Request, error: Exception) -> Response:
    return _answer(request, cast("Refused", error).problem)


async def _answer_framework(request: Request, error: Exception) -> Response:
    """No such path, or no such method there: all that the framework itself refuses."""
    status = cast("HTTPException", error).status_code
    if status != 405:
        return _answer(request, NO_SUCH_PATH)
    allowed = _allowed_methods(request)
    detail = f"{request.method[:20]} is not possible here; {allowed} are."
    return _answer(request, plain_problem(405, detail, headers={"Allow": allowed}))


def _allowed_methods(request: Request) -> str:
    """Of all routes at this path: the framework itself would name those of the first."""
    app: FastAPI = request.app
    methods: set[str] = set()
    for route in app.routes:
        if isinstance(route, APIRoute) and route.matches(request.scope)[0] is not Match.NONE:
            methods |= route.methods or set()
    return ", ".join(sorted(methods))


def _answer(request: Request, problem: Problem) -> Response:
    return problem.response(request.scope["state"]["request_id"])
