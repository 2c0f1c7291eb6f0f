"""Pages of other origins: refused, but for those that the settings name.

The answers are those of the Fetch standard, section 3.3. No credentials mode is offered, because
a page sends its token in a header that it sets itself; so no cookie ever counts here.
"""

from collections.abc import Sequence
from typing import Final

from starlette.responses import Response

Headers = Sequence[tuple[bytes, bytes]]

PREFLIGHT_S: Final = 600  # seconds that a browser need not ask again: origins change at a restart
EXPOSED: Final = (
    "Link, Location, Retry-After, X-Request-ID, Model-Training-State, Model-Training-Position, "
    "Model-Training-Exit-Code, Model-Training-Gaps"
)


def origins_of(headers: Headers) -> list[bytes]:
    """What the Origin headers say."""
    return [value for name, value in headers if name == b"origin"]


def is_same_origin(origin: bytes, headers: Headers) -> bool:
    """Whether the page came from the host that is asked."""
    scheme, separator, authority = origin.partition(b"://")
    hosts = [value for name, value in headers if name == b"host"]
    return bool(separator) and scheme in {b"http", b"https"} and hosts == [authority]


def is_preflight(method: str, headers: Headers) -> bool:
    """Whether a browser asks if a page may ask."""
    return method == "OPTIONS" and any(
        name == b"access-control-request-method" for name, _ in headers
    )


def preflight() -> Response:
    """What a page of a named origin may do: all that the routes offer."""
    headers = {
        "Access-Control-Allow-Methods": "GET, HEAD, POST, DELETE",
        "Access-Control-Allow-Headers": "Authorization, Content-Type, Idempotency-Key, "
        "Last-Event-ID, Range, X-Request-ID",
        "Access-Control-Max-Age": str(PREFLIGHT_S),
    }
    return Response(status_code=204, headers=headers)


def allowing(origin: bytes) -> list[tuple[bytes, bytes]]:
    """The headers by which a browser lets the page read the answer."""
    return [
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", EXPOSED.encode()),
        (b"vary", b"Origin"),
    ]
