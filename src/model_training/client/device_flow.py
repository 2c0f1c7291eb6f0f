"""The device authorization grant (RFC 8628): a person approves the login in any browser.

It needs no browser beside the command, no port that listens and no secret of the command, so that
it works in a shell on another machine and in a container alike. The flow with a redirect to this
machine was rejected: it needs a browser here, and a second flow for where there is none.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from model_training.client.exchange import Disconnected
from model_training.client.logins import Registration, Tokens
from model_training.client.openid import Endpoints, Provider, Refusal, asked_for, read_tokens
from model_training.errors import ModelTrainingError, SettingsError, Unauthenticated

GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
INTERVAL_S: Final = 5.0  # between two questions, where the provider does not say (section 3.2)
SHORTEST_INTERVAL_S: Final = 1.0
SLOWER_S: Final = 5.0  # added at each slow_down (section 3.5)
LONGEST_WAIT_S: Final = 3600.0  # for the person, whatever the provider offers


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceCode:
    """What a person is shown, and what is asked about meanwhile."""

    device_code: str = field(repr=False)
    user_code: str
    verification_uri: str
    verification_uri_complete: str | None
    interval_s: float
    lifetime_s: float


def request_code(
    provider: Provider, endpoints: Endpoints, registration: Registration
) -> DeviceCode:
    """Begin a login.

    Raises:
        SettingsError: the provider does not know this flow, or refuses this client.
        Disconnected: it cannot be asked now.
    """
    if endpoints.device_authorization is None:
        raise SettingsError(
            f"{registration.issuer} has no device_authorization_endpoint: switch the device flow "
            "on there, or get tokens by a token_command."
        )
    try:
        answer = provider.post(endpoints.device_authorization, asked_for(registration))
    except Refusal as refusal:
        raise SettingsError(
            f"{registration.issuer} gives the client {registration.client_id!r} no code: {refusal}."
        ) from None
    try:
        return _device_code(answer)
    except ValueError as error:
        msg = f"The answer of {endpoints.device_authorization} cannot be used: {error}."
        raise ModelTrainingError(msg) from None


def _device_code(answer: Mapping[str, object]) -> DeviceCode:
    complete = answer.get("verification_uri_complete")
    return DeviceCode(
        device_code=_text(answer, "device_code"),
        user_code=_text(answer, "user_code"),
        verification_uri=_address(answer, "verification_uri"),
        verification_uri_complete=(
            None if complete is None else _address(answer, "verification_uri_complete")
        ),
        interval_s=max(SHORTEST_INTERVAL_S, _seconds(answer, "interval", INTERVAL_S)),
        lifetime_s=min(LONGEST_WAIT_S, _seconds(answer, "expires_in", None)),
    )


def _text(answer: Mapping[str, object], name: str) -> str:
    value = answer.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= 4096:
        raise ValueError(f"its {name} is no text of up to 4096 characters")
    return value


def _address(answer: Mapping[str, object], name: str) -> str:
    value = _text(answer, name)
    # A person opens it: nothing in it may act on the terminal, or be an address of another kind.
    if not value.startswith(("https://", "http://")) or not value.isprintable() or " " in value:
        raise ValueError(f"its {name} is no address of a page")
    return value


def _seconds(answer: Mapping[str, object], name: str, default: float | None) -> float:
    value = answer.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 10**9:
        raise ValueError(f"its {name} is no number of seconds")
    return float(value)


def wait_for_tokens(
    provider: Provider,
    endpoints: Endpoints,
    registration: Registration,
    code: DeviceCode,
    pause: Callable[[float], object],
) -> Tokens:
    """Ask until the person has approved or refused, or the code has ended.

    ``pause`` lets seconds pass.

    Raises:
        Unauthenticated: it was refused, or not approved in time.
    """
    form = {**asked_for(registration), "grant_type": GRANT, "device_code": code.device_code}
    interval, left, cuts = code.interval_s, code.lifetime_s, 0
    while left > 0:
        wait = min(left, interval * 2**cuts)
        pause(wait)
        asked_at = time.monotonic()
        try:
            return read_tokens(provider.post(endpoints.token, form), time.time())
        except Refusal as refusal:
            cuts = 0
            if refusal.code == "slow_down":
                interval += SLOWER_S
            elif refusal.code != "authorization_pending":
                raise _refused(refusal) from None
        except Disconnected:
            cuts += 1  # less often, as section 3.5 asks for; an end is set by the code's own
        left -= wait + time.monotonic() - asked_at
    raise Unauthenticated("The code was not entered in time; log in again.")


def _refused(refusal: Refusal) -> Unauthenticated:
    if refusal.code == "access_denied":
        return Unauthenticated("The login was refused in the browser.")
    if refusal.code == "expired_token":
        return Unauthenticated("The code was not entered in time; log in again.")
    return Unauthenticated(f"The provider gives no token: {refusal}.")
