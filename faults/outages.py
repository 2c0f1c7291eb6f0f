"""Parts of the cluster break while jobs run on it, and come back.

Each round: callers of every kind, jobs that run, an outage, callers who come while it lasts, the
recovery; then the service must be in step with the cluster again within seconds.
"""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from callers import Callers
from cluster_lab import ClusterLab

BLOCK = 5  # rounds until everybody has finished and the witness judges
BEFORE_S = 2.0  # the longest time that jobs have been running when it breaks
OUTAGE_S = (1.0, 5.0)  # how long it lasts

Outage = Callable[[ClusterLab], AbstractContextManager[None]]


@contextmanager
def api_server_killed(lab: ClusterLab) -> Iterator[None]:
    lab.cluster.kill("kube-apiserver")
    try:
        yield
    finally:
        lab.mend()


@contextmanager
def api_server_stopped(lab: ClusterLab) -> Iterator[None]:
    """Connections stay open and nobody answers."""
    lab.cluster.pause("kube-apiserver")
    try:
        yield
    finally:
        lab.cluster.resume("kube-apiserver")
        lab.mend()


@contextmanager
def etcd_stopped(lab: ClusterLab) -> Iterator[None]:
    lab.cluster.stop("etcd")
    try:
        yield
    finally:
        lab.mend()


@contextmanager
def kubelet_restarted(lab: ClusterLab) -> Iterator[None]:
    lab.cluster.kill("kubelet", lab.random.choice([signal.SIGTERM, signal.SIGKILL]))
    try:
        yield
    finally:
        lab.mend()


@contextmanager
def containerd_restarted(lab: ClusterLab) -> Iterator[None]:
    lab.cluster.kill("containerd", lab.random.choice([signal.SIGTERM, signal.SIGKILL]))
    try:
        yield
    finally:
        lab.mend()


@contextmanager
def network_cut(lab: ClusterLab) -> Iterator[None]:
    network = lab.network
    lab.random.choice([network.refuse, network.swallow])()
    try:
        yield
    finally:
        network.restore()


OUTAGES: dict[str, Outage] = {
    "api-server-kill": api_server_killed,
    "api-server-stop": api_server_stopped,
    "etcd-stop": etcd_stopped,
    "kubelet-restart": kubelet_restarted,
    "containerd-restart": containerd_restarted,
    "network-cut": network_cut,
}


def campaign(lab: ClusterLab, count: int) -> None:
    """``count`` outages of the kind that the campaign is named for."""
    if lab.name == "network-cut":
        lab.put_network_between()
    service = lab.service().up()
    while lab.rounds < count:
        callers = Callers(lab, service)
        for _ in range(min(BLOCK, count - lab.rounds)):
            one(lab, callers, OUTAGES[lab.name])
        callers.finish()
        callers.settle()
        lab.finish(service, callers.promises)


def one(lab: ClusterLab, callers: Callers, outage: Outage) -> None:
    """One round."""
    some_run(lab, callers)
    began = time.monotonic()
    with outage(lab):
        callers.send_in()
        time.sleep(lab.random.uniform(*OUTAGE_S))
    recovered = time.monotonic()
    lab.away.append((began, recovered))
    lab.judge_step(callers.service, callers.promises, recovered)
    lab.rounds += 1


def some_run(lab: ClusterLab, callers: Callers) -> None:
    """Send callers in; a moment after the first of their jobs has started."""
    already = len(callers.promises)
    callers.send_in()
    now = callers.promises[already:]
    lab.until(lambda: any(runs(lab, each["name"]) for each in now), "no job runs", lab.patience_s)
    time.sleep(lab.random.uniform(0, BEFORE_S))


def runs(lab: ClusterLab, name: str | None) -> bool:
    return name is not None and (lab.truth / name).exists()
