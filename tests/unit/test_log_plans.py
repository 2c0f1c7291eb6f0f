"""What is copied next: every instance of every container once, in order, or said to be missed."""

from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_training.executors.kubernetes.log_plans import Miss, Read, next_step
from model_training.executors.kubernetes.log_sources import Source
from model_training.executors.kubernetes.objects import Container, PodRow

RUNNING = {"running": {}}
ENDED = {"terminated": {"exitCode": 1, "startedAt": "2026-11-25T15:06:07Z"}}
FAILED_TO_START = {"terminated": {"exitCode": 128, "startedAt": "1970-01-01T00:00:00Z"}}
WAITING = {"waiting": {"reason": "CrashLoopBackOff"}}
NOT_FOUND = {"terminated": {"exitCode": 137, "reason": "ContainerStatusUnknown"}}


def container(name: str, state: object, **more: object) -> Container:
    return msgspec.convert({"name": name, "state": state, **more}, Container)


def pod(*containers: Container, phase: str = "Running", **more: Any) -> PodRow:
    inits = tuple(c for c in containers if c.name != "training")
    return PodRow(
        namespace="n",
        name="p",
        uid="u",
        resource_version="1",
        job="j",
        job_uid="",
        created="2026-11-25T15:06:07Z",
        phase=phase,
        init_containers=inits,
        containers=tuple(c for c in containers if c.name == "training"),
        main="training",
        **more,
    )


def at(name: str, instance: int = 0, *, copied: bool = False) -> Source:
    return Source(pod="u", container=name, instance=instance, copied=copied)


def training(state: object, restarts: int = 0, last: object = None, **more: object) -> Container:
    return container("training", state, restartCount=restarts, lastState=last or {}, **more)


def read(name: str, instance: int = 0, *, previous: bool = False, ended: bool = False) -> Read:
    return Read(name, instance, is_previous=previous, has_ended=ended)


NEW = Source(pod="u")
CASES = {
    "nothing reported": (pod(), NEW, None),
    "waiting": (pod(training(WAITING)), NEW, None),
    "running": (pod(training(RUNNING)), NEW, read("training")),
    "ended": (pod(training(ENDED)), NEW, read("training", ended=True)),
    "running in a pod that has ended": (
        pod(training(RUNNING), phase="Failed"),
        NEW,
        read("training", ended=True),
    ),
    "all is copied": (pod(training(ENDED)), at("training", copied=True), None),
    "goes on": (pod(training(RUNNING)), at("training"), read("training")),
    "an init container first": (
        pod(container("one", RUNNING), training(WAITING)),
        NEW,
        read("one"),
    ),
    "the next one waits": (
        pod(container("one", ENDED), training(WAITING)),
        at("one", copied=True),
        None,
    ),
    "the one after it": (
        pod(container("one", ENDED), training(RUNNING)),
        at("one", copied=True),
        read("training"),
    ),
    "not before the first is copied": (
        pod(container("one", ENDED), training(RUNNING)),
        at("one"),
        read("one", ended=True),
    ),
    "not before the first is reported": (
        pod(container("one", WAITING), training(RUNNING)),
        at("one"),
        None,
    ),
    "a sidecar never": (
        pod(container("beside", RUNNING), training(RUNNING), sidecars=("beside",)),
        NEW,
        read("training"),
    ),
    "a status that lacks what is copied": (pod(training(RUNNING)), at("one"), None),
    "to be restarted": (
        pod(training(WAITING, 0, ENDED)),
        NEW,
        read("training", ended=True),
    ),
    "to be restarted once more": (
        pod(training(WAITING, 1, ENDED)),
        at("training", 0, copied=True),
        read("training", 1, ended=True),
    ),
    "restarted": (
        pod(training(RUNNING, 1, ENDED)),
        at("training"),
        read("training", 0, previous=True, ended=True),
    ),
    "restarted, and the first is copied": (
        pod(training(RUNNING, 1, ENDED)),
        at("training", copied=True),
        read("training", 1),
    ),
    "an instance that was made and never started": (
        pod(training(RUNNING, 1, {"waiting": {}})),
        NEW,
        Read("training", 0, is_previous=True, has_ended=True, never_ran=True),
    ),
    "an instance that failed to start": (
        pod(training(RUNNING, 1, FAILED_TO_START)),
        NEW,
        Read("training", 0, is_previous=True, has_ended=True, never_ran=True),
    ),
    "the one that did": (
        pod(training(RUNNING, 1, {"waiting": {}})),
        at("training", copied=True),
        read("training", 1),
    ),
    "restarted twice": (pod(training(RUNNING, 2, ENDED)), at("training"), Miss("training", 0)),
    "restarted thrice": (pod(training(RUNNING, 3, ENDED)), at("training"), Miss("training", 1)),
    "restarted, and the first is forgotten": (
        pod(training(RUNNING, 1)),
        at("training"),
        Miss("training", 0),
    ),
    "to be restarted, and the first is missed": (
        pod(training(WAITING, 1, ENDED)),
        at("training"),
        Miss("training", 0),
    ),
    "a restart that is not reported yet": (
        pod(training(ENDED, 0)),
        at("training", 1),
        None,
    ),
}


@pytest.mark.parametrize(("row", "source", "step"), CASES.values(), ids=CASES)
def test_the_next_step(row: PodRow, source: Source, step: Read | Miss | None):
    assert next_step(row, source) == step


@pytest.mark.parametrize(
    ("ended", "never_ran"),
    [
        (training(ENDED, containerID="c"), False),
        (training(FAILED_TO_START, containerID="c"), True),
        (training(NOT_FOUND), True),
        (training(NOT_FOUND, containerID="c"), False),
        (training(NOT_FOUND, last=ENDED), False),
        (training({"terminated": {"exitCode": 0, "reason": "Completed"}}), False),
    ],
)
def test_a_container_that_never_ran_is_told_from_one_the_kubelet_lost(ended, never_ran):
    step = next_step(pod(ended, phase="Failed"), NEW)
    assert isinstance(step, Read)
    assert (step.has_ended, step.never_ran) == (True, never_ran)


class Moment(NamedTuple):
    """Of a pod's life: which instance of which container is the latest, and how it fares."""

    container: int
    instance: int
    state: str


@st.composite
def lives(draw) -> tuple[list[str], list[Moment]]:
    """Containers, and all moments of a pod in order."""
    names = ["one", "two", "training"][draw(st.integers(0, 2)) :]
    moments = [
        Moment(which, instance, state)
        for which, _ in enumerate(names)
        for instance in range(draw(st.integers(1, 4)))
        for state in ("running", "ended", "waiting")
    ]
    return names, moments


def pod_at(names: list[str], moments: list[Moment], moment: Moment) -> PodRow:
    latest = {which: instance for which, instance, _ in moments}
    rows: list[Container] = []
    for which, name in enumerate(names):
        instance = latest[which] if which < moment.container else moment.instance
        last = ENDED if instance else None
        if which < moment.container:
            row = container(name, ENDED, restartCount=instance, lastState=last or {})
        elif which > moment.container:
            row = container(name, WAITING)
        elif moment.state == "waiting" and instance < latest[which]:
            row = container(name, WAITING, restartCount=instance, lastState=ENDED)
        else:
            state = RUNNING if moment.state == "running" else ENDED
            row = container(name, state, restartCount=instance, lastState=last or {})
        rows.append(row)
    return pod(*rows, phase="Running" if moment != moments[-1] else "Failed")


@given(lives(), st.data())
def test_each_instance_is_read_once_and_in_order_or_missed(life, data):
    names, moments = life
    looks = data.draw(st.lists(st.integers(0, len(moments) - 1)).map(sorted))
    source, handled = Source(pod="u"), list[tuple[str, int]]()
    for look in [*looks, len(moments) - 1]:
        row = pod_at(names, moments, moments[look])
        while (step := next_step(row, source)) is not None:
            if (step.container, step.instance) != (source.container, source.instance):
                source.start(step.container, step.instance, 0)
            if isinstance(step, Miss):
                known = [i for name, i in handled if name == step.container]
                first = known[-1] + 1 if known else 0
                assert first <= step.instance
                handled += [(step.container, i) for i in range(first, step.instance + 1)]
            elif step.has_ended:
                latest = next(
                    c for c in (*row.init_containers, *row.containers) if c.name == step.container
                ).restartCount
                assert step.is_previous == (step.instance < latest)
                handled.append((step.container, step.instance))
            else:
                break
            source.copied = True
    assert handled == [(names[m.container], m.instance) for m in moments if m.state == "ended"]
