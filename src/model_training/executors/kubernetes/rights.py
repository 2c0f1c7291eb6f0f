"""What the executor must be allowed to do in a cluster: one list, for its log, doctor and the docs.

Each right is asked for by itself (SelfSubjectAccessReview). SelfSubjectRulesReview would answer
all of them at once, but may be incomplete, and does not know what an authorizer other than RBAC
decides: https://kubernetes.io/docs/reference/kubernetes-api/authorization-resources/
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from model_training.errors import ExecutorUnavailable
from model_training.executors.kubernetes.api import ApiError, KubernetesApi
from model_training.executors.kubernetes.cluster import ClusterConfig

PAGE: Final = "docs/reference/rights.md"
REVIEWS: Final = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


@dataclass(frozen=True, slots=True)
class Right:
    """One verb on one kind of object."""

    verb: str
    resource: str
    """with its subresource: ``pods/log``"""
    group: str
    why: str
    """what cannot be done without it, after "to" """
    widens: bool = False
    """whether it is needed in all namespaces, where jobs are followed there"""
    of_cluster: bool = False
    """whether there is only one for the whole cluster"""

    def namespace(self, own: str, *, all_namespaces: bool) -> str | None:
        """Where it is needed; None: in all namespaces."""
        return None if self.of_cluster or (self.widens and all_namespaces) else own


_BATCH: Final = "batch"
_CORE: Final = ""

RIGHTS: Final = (
    Right("create", "jobs", _BATCH, "start a training job, which is a Job"),
    Right("get", "jobs", _BATCH, "answer a repeated request with the Job of the first"),
    Right("list", "jobs", _BATCH, "see which training jobs there are", widens=True),
    Right("watch", "jobs", _BATCH, "see how training jobs change", widens=True),
    Right("delete", "jobs", _BATCH, "stop and delete training jobs"),
    Right("get", "pods", _CORE, "see how a pod stands before its log is read again", widens=True),
    Right("list", "pods", _CORE, "see how training jobs stand", widens=True),
    Right("watch", "pods", _CORE, "see how training jobs go on", widens=True),
    Right("delete", "pods", _CORE, "leave no pod behind of a deleted job"),
    Right("get", "pods/log", _CORE, "copy what training jobs print", widens=True),
    Right("list", "podtemplates", _CORE, "find what a pipeline says of its pods"),
    Right("watch", "podtemplates", _CORE, "see when that changes"),
    Right("list", "events", _CORE, "say why a job does not start", widens=True),
)
"""All that it asks for. Everybody who is logged in may ask about rights (``system:basic-user``)."""

TOKEN_REVIEWS: Final = Right(
    "create", "tokenreviews", "authentication.k8s.io",
    "tell whose token of the cluster somebody shows", of_cluster=True,
)  # fmt: skip
"""Where tokens of the cluster are a way in."""
ACCESS_REVIEWS: Final = Right(
    "create", "localsubjectaccessreviews", "authorization.k8s.io",
    "ask what the cluster's roles permit somebody",
)  # fmt: skip
"""Where the cluster's roles decide."""
REVIEW_RIGHTS: Final = (TOKEN_REVIEWS, ACCESS_REVIEWS)
"""What access control asks for, each only where it is configured so."""


@dataclass(frozen=True, slots=True)
class Missing:
    """A right that we do not have."""

    right: Right
    namespace: str | None
    """where it is needed; None: in all namespaces"""

    @property
    def words(self) -> str:
        """As in "the service may not list pods in the namespace training"."""
        return f"{self.right.verb} {self.right.resource} in {where_in_words(self.namespace)}"

    @property
    def way_out(self) -> str:
        """What to grant, and to whom to turn."""
        group = f" of the API group {self.right.group}" if self.right.group else ""
        bound = "a Role there" if self.namespace else "a ClusterRole, bound by a ClusterRoleBinding"
        return (
            f"whoever administers the cluster grants the verb {self.right.verb} on "
            f"{self.right.resource}{group} by {bound}; {PAGE} has all of it"
        )


def where_in_words(namespace: str | None) -> str:
    """``the namespace training``, or ``all namespaces``."""
    return f"the namespace {namespace}" if namespace else "all namespaces"


async def missing_rights(
    api: KubernetesApi,
    namespace: str,
    *,
    all_namespaces: bool,
    rights: Sequence[Right] = RIGHTS,
) -> tuple[Missing, ...]:
    """The rights that we do not have, in their order.

    Args:
        api: of the cluster, entered.
        namespace: where jobs run.
        all_namespaces: whether those of other namespaces are followed too.
        rights: that are needed.

    Raises:
        ExecutorUnavailable: the API server cannot be asked, or not about this; the message names
            where its address and our credentials stand, and what to do.
    """
    places = [
        (right, right.namespace(namespace, all_namespaces=all_namespaces)) for right in rights
    ]
    # One after the other: a connection is enough, and each takes a millisecond or two.
    return tuple([
        Missing(right, place)
        for right, place in places
        if not await _may(api, right, place)
    ])  # fmt: skip


class _Status(msgspec.Struct):
    allowed: bool


class _Review(msgspec.Struct):
    status: _Status


async def _may(api: KubernetesApi, right: Right, namespace: str | None) -> bool:
    resource, _, subresource = right.resource.partition("/")
    attributes = {"verb": right.verb, "group": right.group, "resource": resource}
    if subresource:
        attributes["subresource"] = subresource
    if namespace:
        attributes["namespace"] = namespace
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    try:
        answer = await api.post(REVIEWS, msgspec.json.encode(review))
        return msgspec.json.decode(answer, type=_Review).status.allowed
    except ExecutorUnavailable as error:
        raise ExecutorUnavailable(_with_place(error.message, api.config)) from error
    except ApiError as error:
        reason = f"answers {error.status} when asked what we may do: {error.message.rstrip('.')}."
    except (msgspec.DecodeError, ValueError):
        reason = "answers no access review when asked what we may do: is that a Kubernetes?"
    raise ExecutorUnavailable(_with_place(f"{api.config.server} {reason}", api.config))


def _with_place(message: str, config: ClusterConfig) -> str:
    """With the way out of a wrong address, authority or login: only a person can tell which."""
    if config.origin in message:
        return message
    return (
        f"{message} Its address, its certificate authority and who we are there stand in "
        f"{config.origin}: if one of them is wrong, correct it and start the service again."
    )
