"""The audit log: one JSON line a decision, written before what was decided is done.

A line is written with one call to a descriptor opened for appending, so that lines of this
process never mix and a killed process leaves whole ones. It is not synced: a power cut may take
the last seconds of it, and with them the jobs' own records that would have to be explained.
Tokens, keys and parameter values have no way in: a line is made of the fields below alone.
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

import orjson

from model_training.access.actions import Action
from model_training.access.asked import ASKED
from model_training.access.decisions import Decision, Resource
from model_training.access.principals import Principal
from model_training.errors import AuditUnavailable, SettingsError

logger = logging.getLogger(__name__)

REFUSED_NAMED: Final = 20  # of one question about many: enough to see what it was about
TEXT_LENGTH: Final = 300  # signs of one value; an id of a caller may be as long as a token allows
CHANGES: Final = frozenset({Action.CREATE, Action.STOP, Action.DELETE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was decided about one question, or why nothing was."""

    principal: Principal
    action: Action
    resources: Sequence[Resource]
    decisions: Sequence[Decision]
    """empty if there was no answer"""
    engine: str
    latency_ms: float
    error: str = ""


class AuditLog(Protocol):
    """Where decisions are written down."""

    def write(self, verdict: Verdict) -> None:
        """Write one line.

        Raises:
            AuditUnavailable: it was not written.
        """
        ...


class NoAudit:
    """For a service of one user, who would read only about themselves."""

    def write(self, verdict: Verdict) -> None:
        """Nothing."""


class AuditFile:
    """A file for its owner alone; one that was moved away is made anew."""

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            SettingsError: it cannot be written.
        """
        self._path = path
        self._is_cut = False
        try:
            self._descriptor = self._open()
        except OSError as error:
            msg = f"The setting audit.file: {path} cannot be written: {error.strerror}."
            raise SettingsError(msg) from None

    def close(self) -> None:
        """Write no more."""
        os.close(self._descriptor)

    def write(self, verdict: Verdict) -> None:
        """Write one line."""
        try:
            if self._is_elsewhere():
                fresh = self._open()
                os.close(self._descriptor)
                self._descriptor = fresh
            self._write_line(audit_line(verdict))
        except OSError as error:
            logger.error("the audit log %s cannot be written: %s", self._path, error.strerror)  # noqa: TRY400 - one line, no trace
            raise AuditUnavailable from None

    def _write_line(self, line: bytes) -> None:
        """All of it; a line that a full disk had cut stays alone on its own."""
        rest = b"\n" + line if self._is_cut else line
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]
            self._is_cut = bool(rest)

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(self._path, flags, 0o600)

    def _is_elsewhere(self) -> bool:
        """Whether something moved it away, as what rotates logs does."""
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return True
        ours = os.fstat(self._descriptor)
        return (there.st_ino, there.st_dev) != (ours.st_ino, ours.st_dev)


class AuditStdout:
    """The standard output, as containers are read."""

    def write(self, verdict: Verdict) -> None:
        """Write one line."""
        try:
            _write_whole(1, audit_line(verdict))
        except OSError as error:
            logger.error("the audit log on stdout cannot be written: %s", error.strerror)  # noqa: TRY400 - one line, no trace
            raise AuditUnavailable from None


def _write_whole(descriptor: int, line: bytes) -> None:
    """The whole line; a disk that takes half of one is told by the second call."""
    while line:
        line = line[os.write(descriptor, line) :]


def audit_line(verdict: Verdict) -> bytes:
    """The line, with its end."""
    asked, principal = ASKED.get(), verdict.principal
    line: dict[str, object] = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "event": "decision",
        "request_id": asked.request_id,
        "method": asked.method,
        "route": asked.route,
        "client": asked.client,
        "subject": {
            "kind": str(principal.kind),
            "id": _short(principal.id),
            "issuer": principal.issuer,
            "credential": principal.fingerprint,
        },
        "action": str(verdict.action),
        **_told(verdict),
        "engine": verdict.engine,
        "latency_ms": round(verdict.latency_ms, 3),
    }
    return orjson.dumps(line) + b"\n"


def _told(verdict: Verdict) -> dict[str, object]:
    """What it was about, and what came of it."""
    resources, decisions = verdict.resources, verdict.decisions
    if len(resources) == 1:
        told: dict[str, object] = {"resource": _resource(resources[0])}
        if not decisions:
            return {**told, "decision": "error", "reason": verdict.error}
        [decision] = decisions
        told["decision"] = "permit" if decision.permitted else "deny"
        told["reason"] = _short(decision.reason)
        return told | ({"decision_id": _short(decision.id)} if decision.id else {})
    told = {"resource": {"type": resources[0].type if resources else ""}, "asked": len(resources)}
    if len(decisions) != len(resources):
        return {**told, "decision": "error", "reason": verdict.error}
    refused = [one for one, yes in zip(resources, decisions, strict=True) if not yes.permitted]
    return {
        **told,
        "decision": "list",
        "permitted": len(resources) - len(refused),
        "refused": [_resource(one) for one in refused[:REFUSED_NAMED]],
    }


def _resource(resource: Resource) -> dict[str, object]:
    told: dict[str, object] = {"type": resource.type, "id": _short(resource.id)}
    for name in ("pipeline", "owner"):
        if name in resource.attributes:
            told[name] = _short(str(resource.attributes[name]))
    return told


def _short(text: str) -> str:
    return text if len(text) <= TEXT_LENGTH else f"{text[:TEXT_LENGTH]}..."
