"""What of a pod's output is to be copied next, as a pure function of what is known.

A log holds the output of the init containers in their order, then that of the container that
trains. A container that was restarted within its pod (``restartPolicy: OnFailure``) has several
instances, one after the other; the node keeps the latest and the one before it.
"""

from typing import NamedTuple

from model_training.executors.kubernetes.log_sources import Source
from model_training.executors.kubernetes.objects import Container, PodRow, Terminated


class Read(NamedTuple):
    """Copy this instance of a container."""

    container: str
    instance: int
    is_previous: bool
    """it was restarted since"""
    has_ended: bool
    never_ran: bool = False
    """it ended without having started, and may have no log at all"""


class Miss(NamedTuple):
    """All instances up to this one are out of reach."""

    container: str
    instance: int


def next_step(pod: PodRow, source: Source) -> Read | Miss | None:
    """What to copy next; None while there is nothing (more)."""
    order = [c for c in pod.init_containers if c.name not in pod.sidecars]
    if pod.training is not None:
        order.append(pod.training)
    at = next((i for i, c in enumerate(order) if c.name == source.container), None)
    if at is None:
        if source.container:
            return None  # its status is not known now; it will be
        at, instance = 0, 0
    else:
        instance = source.instance + source.copied
        if step := _of_instance(order[at], instance, pod):
            return step
        if not source.copied:
            return None
        at += 1
    return next((step for c in order[at:] if (step := _of_instance(c, 0, pod))), None)


def _of_instance(container: Container, instance: int, pod: PodRow) -> Read | Miss | None:
    ended, latest = container.state.terminated, container.restartCount
    before = container.lastState.terminated
    is_waiting = container.state.running is None and ended is None
    if is_waiting:  # to be restarted: what is its last state is its latest instance
        ended, before = before, None
    if latest < instance or (is_waiting and ended is None):
        return None
    if latest == instance:
        has_ended = ended is not None or pod.has_ended
        return Read(
            container.name,
            instance,
            is_previous=False,
            has_ended=has_ended,
            never_ran=ended is not None and _never_ran(container, ended),
        )
    if latest == instance + 1 and before is not None:
        never_ran = before.never_started  # as when its kubelet died while it was started
        return Read(container.name, instance, is_previous=True, has_ended=True, never_ran=never_ran)
    if latest == instance + 1 and container.lastState.waiting is not None:
        # Made, but never started: its runtime was restarted in between. It printed nothing.
        return Read(container.name, instance, is_previous=True, has_ended=True, never_ran=True)
    return Miss(container.name, latest - (2 if before is not None else 1))


def _never_ran(container: Container, ended: Terminated) -> bool:
    if ended.startedAt is not None:
        return ended.never_started
    # Made up by a kubelet that cannot find the container; there may have been one.
    return (
        ended.reason == _NOT_FOUND
        and not container.containerID
        and container.lastState.terminated is None
    )


_NOT_FOUND = "ContainerStatusUnknown"
