"""What ``doctor`` finds on a cluster: whether it answers, and what may not be done there."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from model_training.cli.findings import Finding
from model_training.errors import ExecutorUnavailable, SettingsError

if TYPE_CHECKING:
    from model_training.executors.kubernetes.cluster import ClusterConfig
    from model_training.executors.kubernetes.rights import Missing, Right


def cluster_findings(
    kubeconfig: Path | None,
    namespace: str | None,
    *,
    all_namespaces: bool,
    reviews: "tuple[Right, ...]" = (),
) -> Iterator[Finding]:
    """The cluster, and each right that the service would lack there.

    Args:
        kubeconfig: as the setting of this name, like the others.
        namespace: None is that of the kubeconfig's context, or of our pod.
        all_namespaces: whether the jobs of all namespaces are to be followed.
        reviews: what else it needs, to ask the cluster who somebody is and what they may do.
    """
    try:
        from model_training.executors.kubernetes.kubeconfig import load_cluster
        from model_training.executors.kubernetes.rights import RIGHTS, where_in_words
    except ModuleNotFoundError as error:
        way_out = "pip install 'model-training-api[server,kubernetes]'"
        yield Finding("fail", "cluster", f"{error.name} is missing", way_out)
        return
    try:
        cluster = load_cluster(kubeconfig)
    except SettingsError as error:
        way_out = "correct the file, or name another with --kubeconfig FILE"
        yield Finding("fail", "cluster", error.message, way_out)
        return
    place = namespace or cluster.namespace
    try:
        rights = (*RIGHTS, *reviews)
        missing = asyncio.run(_missing(cluster, place, rights, all_namespaces=all_namespaces))
    except ExecutorUnavailable as error:
        way_out = "mend what is named; the service starts meanwhile, and waits, not ready"
        yield Finding("fail", "cluster", error.message, way_out)
        return
    yield Finding("ok", "cluster", f"{cluster.server}, from {cluster.origin}")
    for each in missing:
        found = f"may not {each.words}, needed to {each.right.why}"
        yield Finding("fail", "right", found, each.way_out)
    if not missing:
        reads = f", reads in {where_in_words(None)}" if all_namespaces else ""
        yield Finding("ok", "rights", f"all {len(rights)} in {where_in_words(place)}{reads}")


async def _missing(
    cluster: "ClusterConfig",
    namespace: str,
    rights: "tuple[Right, ...]",
    *,
    all_namespaces: bool,
) -> "tuple[Missing, ...]":
    from model_training.executors.kubernetes.api import KubernetesApi
    from model_training.executors.kubernetes.rights import missing_rights

    async with KubernetesApi(cluster) as api:
        return await missing_rights(api, namespace, all_namespaces=all_namespaces, rights=rights)
