"""Where the endpoints of an AuthZEN decision point are (Authorization API 1.0, sections 9 and 10).

By the standard's own paths below its address, or as it says in its metadata. That is believed only
about itself: some servers write into it whatever host the request was for, and an endpoint of
another origin would be shown our token and decide in its place. Signed metadata is not read: by
which key it would be believed is nowhere said, and TLS has vouched for the plain one.
"""

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from model_training.access.engines.names import JSONObject
from model_training.access.engines.policy_answers import not_understood

WELL_KNOWN: Final = "/.well-known/authzen-configuration"
_PORTS: Final = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where is asked."""

    evaluation: str
    evaluations: str | None
    """for several questions at once; None: it takes one at a time"""


def standard_endpoints(base: str) -> Endpoints:
    """Those below an address without a slash at its end."""
    return Endpoints(f"{base}/access/v1/evaluation", f"{base}/access/v1/evaluations")


def metadata_url(url: str) -> str:
    """Where its metadata is: the path of a tenant comes behind the well-known one."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{WELL_KNOWN}{parts.path.rstrip('/')}"


def endpoints_in(metadata: JSONObject, url: str) -> Endpoints:
    """The endpoints that its metadata names.

    Args:
        metadata: what it answers.
        url: what it was asked about, to the letter.

    Raises:
        AccessUnavailable: it is the metadata of something else, or names endpoints elsewhere.
    """
    if metadata.get("policy_decision_point") != url:
        raise not_understood("its metadata is of another decision point than decisions.url")
    evaluation = _endpoint(metadata, "access_evaluation_endpoint", url)
    if evaluation is None:
        raise not_understood("its metadata names no access_evaluation_endpoint")
    return Endpoints(evaluation, _endpoint(metadata, "access_evaluations_endpoint", url))


def _endpoint(metadata: JSONObject, name: str, url: str) -> str | None:
    endpoint = metadata.get(name)
    if endpoint is None:
        return None
    if not isinstance(endpoint, str):
        raise not_understood(f"{name} in its metadata is no text")
    if not endpoint.isascii() or not endpoint.isprintable() or set(endpoint) & set(" #?\\@"):
        raise not_understood(f"{name} in its metadata is no plain address")
    if origin_of(endpoint) is None or origin_of(endpoint) != origin_of(url):
        raise not_understood(f"{name} in its metadata is of another origin")
    return endpoint


def origin_of(url: str) -> tuple[str, str, int] | None:
    """Scheme, host and port; None: it has none."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    default = _PORTS.get(parts.scheme)
    if default is None or not parts.hostname:
        return None
    return parts.scheme, parts.hostname, default if port is None else port
