"""What Kubernetes says of an end or of a wait, in words for people."""

import re
import signal
from contextlib import suppress
from typing import Final

from model_training.executors.kubernetes.objects import Condition, Container, PodRow, Terminated
from model_training.jobs import Reason

NO_CODE: Final = (
    "nobody saw how its process ended, so there is no exit code: the node's runtime was away"
)
NOT_BEGUN: Final = "stopped before it started"
UNSEEN: Final = "stopped; nobody saw whether its process started, so there is no exit code"
NEVER_STARTED: Final = frozenset({"ContainerCannotRun", "StartError", "RunContainerError"})
"""reasons of an end without a beginning"""

_MADE_UP_CODE: Final = 255
_BEGINNINGS: Final = frozenset({"ContainerCreating", "PodInitializing"})  # of every container
_MESSAGE_LIMIT: Final = 1000  # characters; some runtimes answer with whole pages
_FORBIDDEN: Final = re.compile(r'^Error creating: pods "[^"]*" is forbidden: ')
_NOISE: Final = re.compile(r"^.*(?:OCI runtime create failed|runc create failed)[^:]*: ", re.DOTALL)
_NOT_FOUND: Final = re.compile(
    r'exec: "([^"]*)": (?:executable file not found|stat [^:]*: no such file)'
)


def not_started(pod: PodRow) -> str:
    """What a pod was still waiting for when it was ended, to be put behind that."""
    container = pod.training
    waiting = waiting_words(container) if container else None
    return f", and was still waiting: {waiting[0]}: {waiting[1]}" if waiting else ""


def exit_words(end: Terminated, pod: PodRow) -> tuple[str, str]:
    """Reason and message of a process that ended with another exit code than 0."""
    if is_made_up(end):
        return Reason.ERROR, NO_CODE
    if end.reason == "OOMKilled":
        return Reason.OUT_OF_MEMORY, "it used more memory than its limit, and was killed"
    words = f"exit code {end.exitCode}"
    if name := _signal_name(end.exitCode):
        words += f", which is what a death by {name} gives"
        if end.exitCode == 128 + signal.SIGKILL:
            words += "; a process of it may have run out of memory"
    if pod.deleted:
        words += "; its pod was deleted by somebody else"
    return Reason.ERROR, words


def stop_words(end: Terminated) -> str | None:
    """The message of a process that ended because of a stop."""
    return "finished during stop" if end.exitCode == 0 else None


def _signal_name(exit_code: int) -> str | None:
    with suppress(ValueError):
        return signal.Signals(exit_code - 128).name
    return None


def start_words(message: str) -> str:
    """What the container runtime says, without its own call chain."""
    if match := _NOT_FOUND.search(message):
        return f"command not found: {match[1]}"
    words = _NOISE.sub("", message).removesuffix(": unknown")
    return sentence(words) or "the command cannot be started"


def waiting_words(container: Container) -> tuple[str, str] | None:
    """Reason and message of a container that cannot start (yet); None if it only has to."""
    waiting = container.state.waiting
    if waiting is None or waiting.reason in _BEGINNINGS or not waiting.reason:
        return None
    return waiting.reason, waiting.message or f"the container {container.name} cannot start"


def disruption_words(condition: Condition) -> str:
    """Who took a pod away."""
    return sentence(f"{condition.reason}: {condition.message}".strip(": "))


def init_words(pod: PodRow) -> str:
    """Which init container failed; empty if none did."""
    for container in pod.init_containers:
        end = container.state.terminated
        if end is not None and end.exitCode != 0:
            return f"the init container {container.name} ended with exit code {end.exitCode}"
    return ""


def forbidden_words(message: str) -> str:
    """Kubernetes' own words, numbers included, without the name of a pod that is not there."""
    return _FORBIDDEN.sub("the cluster refuses its pod: ", message)


def is_made_up(end: Terminated) -> bool:
    """A containerd that finds a container ended when it starts knows no exit code, and says 255."""
    return end.reason == "Unknown" and end.exitCode == _MADE_UP_CODE


def sentence(text: str) -> str:
    """One line, bounded."""
    line = " ".join(text.split())
    return line if len(line) <= _MESSAGE_LIMIT else line[: _MESSAGE_LIMIT - 3] + "..."
