"""``auth.properties`` of an existing aiSSEMBLE deployment, as the access file that it means.

Three keys count: ``pdp_host_url``, ``public_key_path`` and ``is_authorization_enabled``, which is
true unless it is said to be false. There, whatever is not ``true`` switches it off; here a slip
does not. The keys of Java key stores are passed over:
what they hold is needed to sign tokens, and this service signs none. Without
``public_key_path`` no token could be verified before it is handed on, so it is needed here.
"""

import os
import re
from pathlib import Path
from typing import Final

from model_training.errors import SettingsError

ISSUER: Final = "aissemble.authority"  # in the tokens that its /api/authenticate makes
AUDIENCE: Final = "audience"
_PASSED_OVER: Final = frozenset({"jks_path", "jks_password", "key_alias"})
_LINE: Final = re.compile(r"([^=:\s]+)\s*[=:\s]\s*(.*)")


def read_properties(path: Path) -> dict[str, object]:
    """What the file means, as the tables of an access file.

    Raises:
        SettingsError: it cannot be read, or says too little.
    """
    values = _values(path)
    switch = values.get("is_authorization_enabled", "true").strip().lower()
    if switch not in ("true", "false"):
        raise SettingsError(
            f"The setting is_authorization_enabled in {path}: expects true or false. With anything "
            "else nobody could tell whether it was meant to be off."
        )
    is_enabled = switch == "true"
    if "public_key_path" not in values:
        raise SettingsError(
            f"The setting public_key_path in {path}: it is missing, and without it no token can be "
            "verified. Name the PEM file of the key that signs the tokens."
        )
    issuer = {
        "name": "aissemble",
        "issuer": ISSUER,
        "audience": AUDIENCE,
        "algorithms": ["RS256"],
        "key": values["public_key_path"],
    }
    if not is_enabled:
        return {"issuers": [issuer], "decisions": {"engine": "permit"}}
    if "pdp_host_url" not in values:
        raise SettingsError(
            f"The setting pdp_host_url in {path}: it is missing, and authorization is enabled. "
            "Name the decision point, such as http://policy-decision-point:8080/api/pdp."
        )
    url = values["pdp_host_url"]
    plain_http = url.startswith("http:")  # as it is inside of a cluster there
    decisions = {"engine": "aissemble", "url": url, "plain_http": plain_http}
    return {"issuers": [issuer], "decisions": decisions}


def _values(path: Path) -> dict[str, str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"The access file {path} cannot be read: {error}. Name another: --access."
        raise SettingsError(msg) from None
    values: dict[str, str] = {}
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if not line or line.startswith(("#", "!")):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise SettingsError(f"Line {number} of {path} is not NAME=VALUE. Correct it there.")
        if match[1] in values:
            raise SettingsError(f"Line {number} of {path} gives {match[1]} twice. Remove one.")
        values[match[1]] = os.path.expandvars(match[2])
    return {name: value for name, value in values.items() if name not in _PASSED_OVER}
