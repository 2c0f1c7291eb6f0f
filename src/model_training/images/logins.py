"""What a registry wants to see before it answers: nothing, a login, or a token for a login.

A 401 names the way (RFC 9110, section 11). ``Bearer`` is the token flow of the distribution
specification: a server that the registry names gives a token, for a login or for nobody. Only
the right to pull from the one repository is asked for, whatever the registry proposes.
"""

import asyncio
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

import httpx2

from model_training.errors import RegistryUnavailable, SettingsError
from model_training.images.credentials import DockerConfig, Login
from model_training.images.destinations import foreign_url, host_of
from model_training.images.documents import members
from model_training.images.exchange import Answer, Exchange, Request
from model_training.images.kept import Kept
from model_training.images.reference import ImageReference

TOKEN_ANSWER_LIMIT: Final = 256 * 1024  # bytes; tokens have some kilobytes
TOKEN_S: Final = 60.0  # seconds that a token lasts which does not say; as the docs of the flow do
EARLY_S: Final = 10.0  # seconds that a token is given up before its end
LONGEST_S: Final = 86_400.0  # seconds; what says it lasts longer is not believed
CLIENT_ID: Final = "model-training-api"

_CHALLENGE = re.compile(
    r'(?P<name>[\w-]+)[ \t]*=[ \t]*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<bare>[^\s,"]+))'
    r"|(?P<scheme>[A-Za-z][\w-]*)"
)
_TOKEN = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to log in that a 401 names."""

    scheme: str
    """in lower case"""
    parameters: Mapping[str, str]


def read_challenges(header: str) -> list[Challenge]:
    """The ways that a ``WWW-Authenticate`` names; what cannot be read is passed over."""
    found: list[tuple[str, dict[str, str]]] = []
    for match in _CHALLENGE.finditer(header):
        if match["scheme"]:
            found.append((match["scheme"].lower(), {}))
        elif found:
            quoted = match["quoted"]
            value = match["bare"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            found[-1][1].setdefault(match["name"].lower(), value)
    return [Challenge(scheme, parameters) for scheme, parameters in found]


class Logins:
    """The ``Authorization`` of each repository, kept while it is good.

    Args:
        exchange: asks the servers that give tokens.
        config: where logins are found; None has none.
        now: seconds of a clock that nobody sets.
    """

    def __init__(
        self,
        exchange: Exchange,
        config: DockerConfig | None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._exchange = exchange
        self._config = config
        self._headers: Kept[tuple[str, str], str] = Kept(1024, now)

    def known(self, image: ImageReference) -> dict[str, str]:
        """The header that was good the last time; empty if there is none."""
        header = self._headers.get((image.host, image.repository))
        return {"Authorization": header} if header else {}

    async def answer(self, image: ImageReference, refusal: Answer, url: httpx2.URL) -> str:
        """The header that a 401 asks for.

        Args:
            image: what is wanted.
            refusal: the 401.
            url: that was asked.

        Raises:
            RegistryUnavailable: there is no login, it is wrong, or the token is not given.
        """
        key = image.host, image.repository
        self._headers.drop(key)
        told = ", ".join(refusal.headers.get_list("www-authenticate"))
        challenges = {each.scheme: each for each in reversed(read_challenges(told))}
        login = await self._login(image)
        if "bearer" in challenges:
            token, seconds = await self._token(image, challenges["bearer"], login, url)
            header = f"Bearer {token}"
        elif "basic" in challenges:
            header, seconds = self._basic(image, login), TOKEN_S
        else:
            raise RegistryUnavailable(f"{image.address} wants a login of a kind unknown here")
        self._headers.put(key, header, seconds)
        return header

    async def refusal(self, image: ImageReference) -> RegistryUnavailable:
        """That a registry lets us see nothing, which does not tell whether it is there."""
        self._headers.drop((image.host, image.repository))
        who = self._who(await self._login(image))
        return RegistryUnavailable(
            f"{image.address} does not show {image.repository} to {who}: it is not there, "
            "or may not be read"
        )

    async def _login(self, image: ImageReference) -> Login | None:
        if self._config is None:
            return None
        try:
            return await asyncio.to_thread(self._config.login, image.host, image.repository)
        except SettingsError as error:
            raise RegistryUnavailable(error.message.removesuffix(".")) from None

    def _who(self, login: Login | None) -> str:
        if self._config is None:
            return "a service without any login (no docker config is set)"
        if login is None:
            return f"a service without a login ({self._config.path} holds none for it)"
        return f"the login in {self._config.path}"

    def _basic(self, image: ImageReference, login: Login | None) -> str:
        if login is None or not login.password:
            who = "an identity token, which is no password" if login else self._who(None)
            raise RegistryUnavailable(f"{image.address} wants a name and password, and got {who}")
        return login.basic

    async def _token(
        self, image: ImageReference, challenge: Challenge, login: Login | None, url: httpx2.URL
    ) -> tuple[str, float]:
        """A token, and the seconds that it is good for."""
        request = _token_request(image, challenge, login, url)
        giver = host_of(request.url)
        answer = await self._exchange.ask_elsewhere(request, url)
        if answer.status in {400, 401, 403}:
            raise RegistryUnavailable(
                f"{giver} gives no token for {image.repository} to {self._who(login)}"
            )
        if answer.status != 200:
            msg = f"{giver}, which gives tokens for {image.address}, answers {answer.status}"
            raise RegistryUnavailable(msg)
        return _read_token(answer.body, giver)


def _token_request(
    image: ImageReference, challenge: Challenge, login: Login | None, url: httpx2.URL
) -> Request:
    realm = foreign_url(challenge.parameters.get("realm", ""), base=url)
    asked = {"scope": f"repository:{image.repository}:pull"}
    if service := challenge.parameters.get("service"):
        asked["service"] = service
    if login is None or login.identity_token is None:
        return Request(
            "GET",
            realm.copy_merge_params(asked),
            headers={"Authorization": login.basic} if login else {},
            limit=TOKEN_ANSWER_LIMIT,
        )
    asked |= {
        "grant_type": "refresh_token",
        "refresh_token": login.identity_token,
        "client_id": CLIENT_ID,
    }
    return Request(
        "POST",
        realm,
        headers={"Content-Type": "application/x-www-form-urlencoded"},
        content=urlencode(asked).encode(),
        limit=TOKEN_ANSWER_LIMIT,
    )


def _read_token(body: bytes, giver: str) -> tuple[str, float]:
    try:
        plain = members(json.loads(body))
    except (ValueError, RecursionError):
        plain = members(None)
    token = plain.get("token") or plain.get("access_token")
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise RegistryUnavailable(f"{giver} answers without a token")
    told = plain.get("expires_in")
    lasts = float(told) if isinstance(told, int | float) and 0 < told < LONGEST_S else TOKEN_S
    return token, lasts - EARLY_S
