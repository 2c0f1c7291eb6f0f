"""Who may use this service: the access file's word, or that of whoever has the local token."""

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from model_training.access.access_file import AccessFile, read_access_file
from model_training.access.decisions import LocalDecider
from model_training.access.guard import Guard
from model_training.access.opening import Access, ReviewingCluster, open_access
from model_training.access.principals import LocalToken, read_or_create_token
from model_training.api.composition import LOCAL_NAMESPACE
from model_training.errors import SettingsError
from model_training.folders import DataFolder
from model_training.settings import Settings

if TYPE_CHECKING:
    from model_training.executors.kubernetes.rights import Right


async def access_of(settings: Settings, data: DataFolder, stack: AsyncExitStack) -> Access:
    """What the settings say, at work until ``stack`` is left.

    Raises:
        SettingsError: it cannot be done as they say.
    """
    local = LocalToken(read_or_create_token(data.token))
    if settings.access is None:
        return Access(local, Guard(LocalDecider()))
    file = read_access_file(settings.access)
    cluster = await _cluster(settings, file, stack)
    try:
        return await open_access(
            file,
            data=data,
            local=local,
            namespace=cluster.namespace if cluster else settings.namespace or LOCAL_NAMESPACE,
            cluster=cluster,
            stack=stack,
        )
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"{error.name} is missing, which the access file needs; "
            "install: pip install 'model-training-api[server,access]'"
        ) from error


async def _cluster(
    settings: Settings, file: AccessFile, stack: AsyncExitStack
) -> ReviewingCluster | None:
    """The cluster that jobs run in, if it is to be asked, by connections of its own."""
    if settings.executor != "kubernetes" or not asks_cluster(file):
        return None
    from model_training.executors.kubernetes.api import KubernetesApi
    from model_training.executors.kubernetes.kubeconfig import load_cluster
    from model_training.executors.kubernetes.readiness import Readiness
    from model_training.executors.kubernetes.reviewing import Reviewing

    cluster = load_cluster(settings.kubeconfig)
    api = await stack.enter_async_context(KubernetesApi(cluster))
    namespace = settings.namespace or cluster.namespace
    rights = review_rights(file)
    readiness = Readiness(api, namespace, all_namespaces=False, rights=rights)
    stack.callback(asyncio.create_task(readiness.run(), name="rights to review").cancel)
    return ReviewingCluster(Reviewing(api), namespace, lambda: readiness.is_ready)


def asks_cluster(file: AccessFile) -> bool:
    """Whether the cluster is to say who somebody is, or what they may do."""
    return file.kubernetes is not None or file.decisions.engine == "kubernetes"


def review_rights(file: AccessFile) -> "tuple[Right, ...]":
    """What the service must be allowed to ask the cluster that jobs run in."""
    from model_training.executors.kubernetes.rights import ACCESS_REVIEWS, TOKEN_REVIEWS

    tokens = (TOKEN_REVIEWS,) if file.kubernetes is not None else ()
    decisions = (ACCESS_REVIEWS,) if file.decisions.engine == "kubernetes" else ()
    return tokens + decisions
