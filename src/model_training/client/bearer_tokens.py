"""What the client itself looks at in a token: that it fits into a header, and when it ends.

Nobody's word is taken from it. Whether a token is good is for the server to say, which checks its
signature; a wrong end read here costs one refused request, or one token more than was needed.
"""

import base64
import json
import re
from typing import Final, cast

from model_training.errors import SettingsError

TOKEN_BYTES: Final = 64 * 1024  # far beyond what any server takes in a header
# A sign that cannot stand in a header would make the HTTP client show all of it in its error.
_TOKEN: Final = re.compile(r"[!-~]+")


def checked_token(text: str, source: str) -> str:
    """The token in a text, without the white space around it.

    Raises:
        SettingsError: there is none, or what is there cannot be one; the message names ``source``
            and shows nothing of it.
    """
    token = text.strip()
    if not token:
        raise SettingsError(f"{source} is empty; a token was expected.")
    if len(token) > TOKEN_BYTES or not _TOKEN.fullmatch(token):
        raise SettingsError(
            f"{source} holds something else than one token, which is one word of at most "
            f"{TOKEN_BYTES} printable ASCII characters."
        )
    return token


def end_of(token: str) -> float | None:
    """When a JSON Web Token ends, in seconds since 1970; None where it does not say so."""
    end = claims_of(token).get("exp")
    if isinstance(end, bool) or not isinstance(end, int | float) or not 0 <= end < 10**11:
        return None
    return float(end)


def claims_of(token: str) -> dict[str, object]:
    """What a JSON Web Token says; nothing where it is none. Nothing of it is checked."""
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        body = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        claims = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, object]", claims) if isinstance(claims, dict) else {}
