"""What is told to a decision point about somebody and something, in one form for all of them.

No colon and no control sign goes into a type, an id or a string that is decided by: some decision
points join these with colons, for a key of a cache or for a name of their own, and then two
questions are one. Nothing is escaped, as an escape is understood by the policy alone and two ways
to write one thing are two things to it; whoever has such a name is refused.

What is told is picked here by name. A property that a caller could name would reach into the
policy: some decision points read roles from properties of certain names.
"""

import re
from typing import Final, TypeAlias

import orjson

from model_training.access.decisions import Decision, Resource
from model_training.access.principals import Principal, PrincipalKind
from model_training.errors import AccessUnavailable

JSONObject: TypeAlias = dict[str, object]

REFUSED_PRINCIPAL: Final = Decision(
    permitted=False, reason="the principal's name cannot be told to the decision point"
)
REFUSED_RESOURCE: Final = Decision(
    permitted=False, reason="the resource's name cannot be told to the decision point"
)

# Asked about to see whether a decision point answers; that it says no is as good.
SOMEBODY: Final = Principal(PrincipalKind.USER, "self-test", issuer="self-test")
SOMETHING: Final = Resource("training_pipeline", "self-test")

# Attributes are named in this code. The longest that is taken everywhere, and no dot: behind one
# some decision points have names of their own (``cerbos.roles``).
_ATTRIBUTE: Final = re.compile(r"[a-z][a-z_]{0,49}")


def sendable(text: str) -> bool:
    """Whether a decision point cannot take it for anything else: no colon, no control sign.

    Of what is invisible only the plain space is taken.
    """
    return bool(text) and ":" not in text and text.isprintable()


def subject_of(principal: Principal) -> JSONObject | None:
    """Somebody; None: they cannot be told of."""
    if not sendable(principal.id):
        return None
    return {
        "type": str(principal.kind),
        "id": principal.id,
        "properties": {
            "groups": list(principal.groups),
            "roles": list(principal.roles),
            "issuer": principal.issuer,
        },
    }


def resource_of(resource: Resource) -> JSONObject | None:
    """Something, with all of its attributes; None: it cannot be told of."""
    if not sendable(resource.type) or not sendable(resource.id):
        return None
    if not all(_ATTRIBUTE.fullmatch(name) for name in resource.attributes):
        return None
    return {
        "type": resource.type,
        "id": resource.id,
        "properties": dict(resource.attributes),
    }


def canonical(value: object) -> bytes:
    """JSON that is the same for the same value: keys in order, no spaces.

    Raises:
        AccessUnavailable: it cannot be written, such as half of a surrogate pair.
    """
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:
        msg = "What is asked for cannot be told to the decision point."
        raise AccessUnavailable(msg) from None
