"""How the cluster is asked for a review: a body goes to a path, and the filled body comes back.

Only this shape is known here. Who sends it has the cluster's address, our credentials there, and
the limits in time and size; it is given to us, because ways to run jobs and ways to decide about
them know nothing of each other.
"""

from typing import Protocol, TypeAlias, cast

from model_training.errors import AccessUnavailable

JSONObject: TypeAlias = dict[str, object]


class Review(Protocol):
    """Asks the API server of one cluster."""

    async def __call__(self, path: str, body: JSONObject) -> JSONObject:
        """The body as it was filled in.

        Args:
            path: of the review, from the root.
            body: kind, version and spec.

        Raises:
            AccessUnavailable: there is no answer, or none that is a JSON object.
        """
        ...


def status_of(answer: JSONObject, kind: str) -> JSONObject:
    """What was filled in.

    Raises:
        AccessUnavailable: the answer is no review of this kind.
    """
    if answer.get("kind") != kind:
        raise not_understood(kind, "it is of another kind")
    status = answer.get("status")
    if not isinstance(status, dict):
        raise not_understood(kind, "it has no status")
    return cast("JSONObject", status)


def text_in(table: JSONObject, name: str, kind: str) -> str:
    """A text, empty where it is left out.

    Raises:
        AccessUnavailable: it is none.
    """
    value = table.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise not_understood(kind, f"{name} is no text")
    return value


def switch_in(table: JSONObject, name: str, kind: str) -> bool:
    """Yes or no; no where it is left out, as Kubernetes leaves out what is false.

    Raises:
        AccessUnavailable: it is neither; "true" in quotes is not, and neither is null.
    """
    value = table.get(name, False)
    if not isinstance(value, bool):
        raise not_understood(kind, f"{name} is neither true nor false")
    return value


def not_understood(kind: str, reason: str) -> AccessUnavailable:
    """What is raised for an answer that is none."""
    return AccessUnavailable(f"The cluster's answer to a {kind} cannot be understood: {reason}.")
