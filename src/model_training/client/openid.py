"""An OpenID provider, as far as a login needs it: who it says it is, and forms sent to it.

What it answers is read with suspicion: of bounded size and time, as strict JSON, from no other
place than was asked (no redirect is followed: what is sent are secrets), and its own words reach a
person only shortened, escaped, and without the secret that they might repeat.

Whatever is no answer of a provider (no connection, a proxy's page, 5xx) is ``Disconnected``: it
says nothing about the login, which is therefore never given up for it.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, cast

import httpx2

from model_training import __version__
from model_training.client.bearer_tokens import checked_token, end_of
from model_training.client.exchange import Disconnected
from model_training.client.logins import Registration, Tokens
from model_training.client.origins import checked_url, is_loopback, require_private
from model_training.errors import MalformedRequest, ModelTrainingError, SettingsError
from model_training.strict_json import parse_json, shortened

SILENCE_S: Final = 10.0  # seconds, for a connection and within an answer
ANSWER_S: Final = 30.0  # seconds for a whole answer, however slowly it comes
ANSWER_BYTES: Final = 256 * 1024
LONGEST_LIFE_S: Final = 366 * 86_400.0  # of an access token; a longer one is a mistake
_EXAMPLE: Final = "https://login.example.org/realms/ml"
_SECRETS: Final = ("refresh_token", "device_code", "token")


class Refusal(Exception):
    """The provider says no. ``code`` is one of OAuth's; ``words`` are the provider's, made safe."""

    def __init__(self, code: str, words: str) -> None:
        self.code = code
        self.words = words
        super().__init__(f"{code} {words}".strip())


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """Where a provider does what; None: it does not."""

    token: str
    device_authorization: str | None
    revocation: str | None


class Provider:
    """One provider; its connection is closed by ``with``.

    Args:
        issuer: its address, exactly as its tokens have it.

    Raises:
        SettingsError: secrets cannot be sent to such an address.
    """

    def __init__(self, issuer: str) -> None:
        checked_url(issuer, _EXAMPLE)
        require_private(issuer, "A login")
        self._issuer = issuer
        self._http = httpx2.Client(
            timeout=SILENCE_S,
            follow_redirects=False,
            trust_env=not is_loopback(issuer),  # proxies are for servers elsewhere
            headers={"accept": "application/json", "user-agent": f"model-training/{__version__}"},
        )

    def __enter__(self) -> "Provider":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def discover(self) -> Endpoints:
        """Where it does what (OpenID Connect Discovery 1.0, section 4).

        Raises:
            SettingsError: this is not the provider that was asked for, or it cannot be used.
            Disconnected: it cannot be asked now.
        """
        url = f"{self._issuer.rstrip('/')}/.well-known/openid-configuration"
        status, document = self._ask(self._http.build_request("GET", url))
        if status != 200:
            raise Disconnected(f"{url} answers {status}", sent=False)
        if document.get("issuer") != self._issuer:
            raise SettingsError(
                f"{url} is of the issuer {shortened(document.get('issuer'), limit=200)}, "
                f"and {self._issuer} was asked for; the two must be equal to the last sign."
            )
        token = self._endpoint(document, "token_endpoint")
        if token is None:
            raise SettingsError(f"{url} names no token_endpoint; is it an OpenID provider?")
        return Endpoints(
            token=token,
            device_authorization=self._endpoint(document, "device_authorization_endpoint"),
            revocation=self._endpoint(document, "revocation_endpoint"),
        )

    def _endpoint(self, document: Mapping[str, object], name: str) -> str | None:
        url = document.get(name)
        if url is None:
            return None
        try:
            checked_url(str(url), _EXAMPLE)
            require_private(str(url), "A login")
        except SettingsError as error:
            msg = f"The {name} of {self._issuer} cannot be used: {error.message}"
            raise SettingsError(msg) from None
        return str(url)

    def post(self, url: str, form: Mapping[str, str]) -> Mapping[str, object]:
        """Send a form to one of the endpoints; what it answers.

        Raises:
            Refusal: it says no.
            Disconnected: it cannot be asked now.
        """
        status, document = self._ask(self._http.build_request("POST", url, data=dict(form)))
        if status == 200:
            return document
        code = document.get("error")
        if status not in (400, 401, 403) or not isinstance(code, str):
            raise Disconnected(f"{url} answers {status}", sent=True)
        raise Refusal(shortened(code).strip('"'), _words(document, form))

    def revoke(self, url: str, form: Mapping[str, str]) -> None:
        """Have a token ended (RFC 7009); what a yes says beside its status is nothing.

        Raises:
            Disconnected: it did not say yes.
        """
        status, _ = self._exchange(self._http.build_request("POST", url, data=dict(form)))
        if status != 200:
            raise Disconnected(f"{url} answers {status}", sent=True)

    def _ask(self, request: httpx2.Request) -> tuple[int, Mapping[str, object]]:
        url = str(request.url)
        status, body = self._exchange(request)
        try:
            document = parse_json(body)
        except MalformedRequest:
            document = None
        if not isinstance(document, dict):
            raise Disconnected(f"{url} answers {status} without a JSON object", sent=True)
        return status, cast("dict[str, object]", document)

    def _exchange(self, request: httpx2.Request) -> tuple[int, bytes]:
        try:
            return self._read(request)
        except httpx2.RequestError as error:
            why = f"{request.url}: {error or type(error).__name__}"
            raise Disconnected(why, sent=not isinstance(error, httpx2.ConnectError)) from None

    def _read(self, request: httpx2.Request) -> tuple[int, bytes]:
        deadline = time.monotonic() + ANSWER_S
        answer = self._http.send(request, stream=True)
        try:
            body = b""
            for piece in answer.iter_bytes():
                body += piece
                if len(body) > ANSWER_BYTES:
                    why = f"{request.url} answers with more than {ANSWER_BYTES} bytes"
                    raise Disconnected(why, sent=True)
                if time.monotonic() > deadline:
                    why = f"{request.url} is not done with its answer after {ANSWER_S:g} s"
                    raise Disconnected(why, sent=True)
            return answer.status_code, body
        finally:
            answer.close()


def asked_for(registration: Registration) -> dict[str, str]:
    """The part of a form that says for whom a token is, and for what.

    Providers name the audience by one of two parameters and ignore the other: RFC 8707, which
    wants a URI, and what some had before it.
    """
    form = {"client_id": registration.client_id, "scope": registration.scope}
    if audience := registration.audience:
        form["audience"] = audience
        if ":" in audience:
            form["resource"] = audience
    return form


def read_tokens(document: Mapping[str, object], now: float, before: Tokens | None = None) -> Tokens:
    """The tokens of an answer; a refresh token that is not replaced stays the one ``before``.

    Raises:
        ModelTrainingError: there is none that can be sent.
    """
    access, kind = document.get("access_token"), document.get("token_type")
    refresh = document.get("refresh_token", before.refresh_token if before else None)
    if not isinstance(access, str) or str(kind).lower() != "bearer":
        raise ModelTrainingError("The provider gave no bearer token.")
    if refresh is not None and not isinstance(refresh, str):
        raise ModelTrainingError("The provider gave a refresh token that is none.")
    token = checked_token(access, "The access token of the provider")
    lifetime = document.get("expires_in")
    if isinstance(lifetime, bool) or not isinstance(lifetime, int | float):
        end = end_of(token)
    else:
        end = now + min(max(0.0, lifetime), LONGEST_LIFE_S)
    return Tokens(access_token=token, obtained_at=now, expires_at=end, refresh_token=refresh)


def _words(document: Mapping[str, object], form: Mapping[str, str]) -> str:
    told = document.get("error_description")
    if not isinstance(told, str) or any(form[name] in told for name in _SECRETS if name in form):
        return ""
    return shortened(told, limit=200)
