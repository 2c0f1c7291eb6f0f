"""What the service counts, in Prometheus' text format.

Labels are bounded: the route's template, never a path, so that a stranger cannot fill the
memory with made-up names; and never a job, an owner or a pipeline.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.types import Scope

from model_training.jobs import JobState

MEDIA_TYPE: Final = CONTENT_TYPE_LATEST
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "DELETE"})


class Metrics:
    """The counts of one application."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "model_training_http_requests",
            "Requests answered, by route, method and status.",
            ("route", "method", "status"),
            registry=self._registry,
        )
        self._jobs = Gauge(
            "model_training_jobs", "Training jobs, by state.", ("state",), registry=self._registry
        )
        self._followers = Gauge(
            "model_training_log_followers", "Clients following a log.", registry=self._registry
        )

    def count(self, scope: Scope, status: int) -> None:
        """One request was answered (status 0: the client went away before)."""
        route = getattr(scope.get("route"), "path", "none")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._requests.labels(route, method, str(status)).inc()

    def text(self, jobs: Mapping[JobState, int], followers: int) -> bytes:
        """All of them, with the jobs and followers of this moment."""
        states: Iterable[JobState] = JobState
        for state in states:
            self._jobs.labels(str(state)).set(jobs.get(state, 0))
        self._followers.set(followers)
        return generate_latest(self._registry)
