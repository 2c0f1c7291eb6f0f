"""From settings to a service at work: the one place that knows which parts there are.

What only one executor needs is imported where it is chosen, so that one machine never loads
what speaks to a cluster.
"""

import os
from collections.abc import Collection
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import TYPE_CHECKING

from model_training.access.guard import Guard
from model_training.errors import RegistryUnavailable, SettingsError
from model_training.executors.base import Executor
from model_training.executors.local.devices import found_gpus
from model_training.executors.local.executor import LocalExecutor
from model_training.folders import DataFolder
from model_training.ledger.ledger import JobFilter, Ledger
from model_training.logs.follow import Followers
from model_training.pipelines.digests import FolderDigests
from model_training.pipelines.folders import FolderSource
from model_training.pipelines.pipeline import PipelineSource
from model_training.service import Parts, TrainingService
from model_training.settings import Settings
from model_training.tracker import Tracker

if TYPE_CHECKING:
    from model_training.images.reach import Reach
    from model_training.pipelines.images import Check, ImageNames

LOCAL_NAMESPACE = "local"


async def build_service(
    settings: Settings, data: DataFolder, ledger: Ledger, guard: Guard, stack: AsyncExitStack
) -> TrainingService:
    """Everything at work; ends when ``stack`` is left.

    Raises:
        SettingsError: the settings of the chosen executor do not suffice.
    """
    build = _kubernetes if settings.executor == "kubernetes" else _local
    executor, source, namespace = build(settings, data, ledger, stack)
    await stack.enter_async_context(executor)
    followers = Followers()
    retention = None if settings.retention is None else timedelta(seconds=settings.retention)
    tracker = await stack.enter_async_context(
        Tracker(executor, ledger, followers, data, retention=retention)
    )
    parts = Parts(
        executor=executor,
        source=source,
        ledger=ledger,
        tracker=tracker,
        followers=followers,
        guard=guard,
        data=data,
    )
    return TrainingService(parts, disk_reserve=settings.disk_reserve, namespace=namespace)


_Built = tuple[Executor, PipelineSource, str]


def _local(settings: Settings, data: DataFolder, _ledger: Ledger, _stack: AsyncExitStack) -> _Built:
    gpus = found_gpus() if settings.gpus is None else settings.gpus
    executor = LocalExecutor(
        data,
        slots=settings.slots_with(len(gpus)),
        gpus=gpus,
        log_limit=settings.log_limit,
        digest_of=FolderDigests().digest,
    )
    return executor, FolderSource(settings.pipelines, data.pipelines), LOCAL_NAMESPACE


def _kubernetes(
    settings: Settings, data: DataFolder, ledger: Ledger, stack: AsyncExitStack
) -> _Built:
    try:
        from model_training.executors.kubernetes.api import KubernetesApi
        from model_training.executors.kubernetes.executor import KubernetesExecutor
        from model_training.executors.kubernetes.kubeconfig import load_cluster
        from model_training.executors.kubernetes.manifest import Site
        from model_training.executors.kubernetes.node_images import NodeImages
        from model_training.pipelines.images import RegistrySource
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"{error.name} is missing, which the kubernetes executor needs; "
            "install: pip install 'model-training-api[server,kubernetes]'"
        ) from error
    cluster = load_cluster(settings.kubeconfig)
    namespace = settings.namespace or cluster.namespace
    api = KubernetesApi(cluster)
    executor = KubernetesExecutor(
        api,
        data,
        Site(
            namespace=namespace,
            outputs_claim=settings.outputs_claim,
            outputs_folder=settings.outputs_folder,
        ),
        all_namespaces=settings.all_namespaces,
        log_limit=settings.log_limit,
    )
    names = _image_names(settings)
    check: Check | None = None
    if settings.image_check == "registry":
        check = _registry_check(settings, names, stack)
    elif settings.image_check == "nodes":
        check = NodeImages(api).check

    async def known() -> Collection[str]:
        past = {pipeline for pipeline, _ in await ledger.pairs(JobFilter()) if pipeline}
        return past | set(executor.pipelines)

    source = RegistrySource(names, check, known, when_unknown=settings.image_unknown)
    return executor, source, namespace


def _image_names(settings: Settings) -> "ImageNames":
    from model_training.images.reference import parse_registry
    from model_training.pipelines.images import ImageNames

    if settings.registry is None:
        raise SettingsError(
            "The kubernetes executor needs to know where the images of pipelines are: "
            "--registry HOST[/PREFIX], of which pipeline P is HOST/PREFIX/model-training-P."
        )
    try:
        return ImageNames(parse_registry(settings.registry), settings.image_tag)
    except ValueError as error:
        raise SettingsError(f"The setting registry: {error}") from None


def _registry_check(settings: Settings, names: "ImageNames", stack: AsyncExitStack) -> "Check":
    from model_training.images.credentials import DockerConfig, config_of
    from model_training.images.registry import RegistryClient
    from model_training.pipelines.labels import LABEL_PREFIX

    file = settings.registry_config or config_of(os.environ)
    client = RegistryClient(
        DockerConfig(file) if file else None,
        reach=_reach(settings, names.of("any").address),
        label_prefix=LABEL_PREFIX,
    )
    stack.push_async_callback(client.aclose)
    return client.check


def _reach(settings: Settings, registry: str) -> "Reach":
    """How registries are reached; that the one of the settings can be is seen at the start."""
    from model_training.images.reach import Reach

    try:
        reach = Reach(settings.insecure_registry, os.environ)
    except ValueError as error:
        raise SettingsError(f"The setting insecure_registry: {error}") from None
    try:
        reach.proxy(reach.url(registry, "/"))
    except RegistryUnavailable as error:
        raise SettingsError(f"The registry {registry} cannot be asked: {error.message}.") from None
    return reach
