"""Reviews by the API server: who somebody is, and what the cluster's roles permit them.

A request to us waits for each, so all that can hold it up is bounded: time, size, how many are
asked at once (as many as ``api.py`` opens connections, 64); and after a few failures none is asked
for a moment. Nothing that the API server
wrote is shown or logged but a status and its one-word reason, since a failed review may repeat the
token that was reviewed.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Final, cast

import msgspec

from model_training.errors import AccessUnavailable, ExecutorUnavailable, MalformedRequest
from model_training.executors.kubernetes.api import ApiError, KubernetesApi, Unanswered
from model_training.executors.kubernetes.rights import REVIEW_RIGHTS, Missing
from model_training.strict_json import parse_json

REVIEW_S: Final = 2.0  # seconds for one, repeated or not, with the time until a connection is free
REVIEW_BYTES: Final = 256 * 1024  # of an answer; one with a thousand groups has 64 KiB
FAILURES: Final = 5  # one after the other, and the API server is taken to be away
PAUSE_S: Final = 5.0  # seconds until it is asked again then
LONGEST_PAUSE_S: Final = 30  # seconds that a caller is told to wait, whatever Retry-After says

logger: Final = logging.getLogger(__name__)


@dataclass(slots=True)
class _Trouble:
    """How reviews of one kind went lately."""

    failures: int = 0
    paused_until: float = 0.0
    said: str = ""


class Reviewing:
    """Asks for reviews, by calling it with a path and a body.

    Args:
        api: entered, and with connections of its own, so that many callers who log in take none
            from jobs.
        now: seconds of a clock that nobody sets.
    """

    def __init__(self, api: KubernetesApi, now: Callable[[], float] = monotonic) -> None:
        self._api = api
        self._now = now
        self._troubles: defaultdict[str, _Trouble] = defaultdict(_Trouble)
        """by path: what reviews of tokens suffer from need not be in the way of decisions"""

    async def __call__(self, path: str, body: dict[str, object]) -> dict[str, object]:
        """The body as the API server filled it in.

        Raises:
            AccessUnavailable: it did not.
        """
        trouble = self._troubles[path]
        left = trouble.paused_until - self._now()
        if left > 0:
            raise _unavailable("did not answer the last times", round(left))
        try:
            async with asyncio.timeout(REVIEW_S):
                answer = _object(await self._posted(path, msgspec.json.encode(body)))
        except TimeoutError:
            fault = _Fault(f"does not answer within {REVIEW_S:.0f} s")
        except ExecutorUnavailable as error:
            fault = _fault_of(error)
        except ApiError as no:
            fault = _Fault(f"refuses it: {_told(no)}", _right_words(path, no), is_outage=False)
        except MalformedRequest:
            fault = _Fault("answers with what is no JSON object")
        else:
            trouble.failures, trouble.said = 0, ""
            return answer
        self._remember(path, trouble, fault)
        raise _unavailable(fault.words, fault.retry_after)

    async def _posted(self, path: str, body: bytes) -> bytes:
        try:
            return await self._api.post(path, body, at_most=REVIEW_BYTES)
        except ExecutorUnavailable as error:
            if isinstance(error.__cause__, ApiError):
                raise
        # Most often a connection that the API server closed meanwhile; a review leaves nothing
        # behind, so it may be asked for twice.
        return await self._api.post(path, body, at_most=REVIEW_BYTES)

    def _remember(self, path: str, trouble: _Trouble, fault: "_Fault") -> None:
        if fault.is_outage:
            trouble.failures += 1
            if trouble.failures >= FAILURES:  # and once more for each that fails after the pause
                trouble.paused_until = self._now() + PAUSE_S
        if trouble.said != fault.log:  # once, not for each caller
            trouble.said = fault.log
            logger.warning("A review at %s failed: %s", path, fault.log)


@dataclass(frozen=True, slots=True)
class _Fault:
    words: str
    """after "the API server", for callers"""
    more: str = ""
    """for the log"""
    retry_after: int = 1
    is_outage: bool = True

    @property
    def log(self) -> str:
        return self.more or f"the API server {self.words}."


def _unavailable(words: str, retry_after: int) -> AccessUnavailable:
    return AccessUnavailable(
        f"The cluster cannot be asked now: its API server {words}.", retry_after=max(1, retry_after)
    )


def _object(body: bytes) -> dict[str, object]:
    value = parse_json(body)
    if not isinstance(value, dict):
        raise MalformedRequest
    return cast("dict[str, object]", value)


def _fault_of(error: ExecutorUnavailable) -> _Fault:
    after = min(error.retry_after, LONGEST_PAUSE_S)
    match error.__cause__:
        case ApiError() as no if no.status == 401:  # says where our own credentials stand
            return _Fault("does not know this service", error.message, retry_after=after)
        case ApiError() as no:
            return _Fault(f"cannot do it now: {_told(no)}", retry_after=after)
        case Unanswered():
            return _Fault("gives no whole answer", retry_after=after)
        case _:
            return _Fault("cannot be reached", error.message, retry_after=after)


def _told(no: ApiError) -> str:
    """Its status, and the word that Kubernetes has for it."""
    is_word = no.reason.isascii() and no.reason.isalpha() and len(no.reason) <= 40
    return f"{no.status} {no.reason}" if is_word else str(no.status)


def _right_words(path: str, no: ApiError) -> str:
    """Which right we lack; empty if that is not the reason."""
    if no.status != 403:
        return ""
    *before, resource = path.split("/")
    place = before[-1] if "namespaces" in before else None
    for right in REVIEW_RIGHTS:
        if right.resource == resource:
            missing = Missing(right, place)
            why = f"which it needs to {right.why}"
            return f"the service may not {missing.words}, {why}; {missing.way_out}."
    return ""
