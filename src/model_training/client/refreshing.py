"""New tokens for a login that ends, by its refresh token: once, whoever needs them.

Apart from ``credentials.py``, so that the HTTP of it is only loaded where a login is refreshed.
"""

from collections.abc import Callable
from dataclasses import replace

from model_training.client.exchange import Disconnected
from model_training.client.logins import Login, LoginFile, Registration, Tokens
from model_training.client.openid import Provider, Refusal, asked_for, read_tokens
from model_training.errors import Unauthenticated

LOG_IN = "log in again: model-training login"


def refreshed(file: LoginFile, stale: str, clock: Callable[[], float]) -> str:
    """The access token of a login after ``stale``: refreshed now, or by somebody else meanwhile.

    Raises:
        Unauthenticated: the login has ended.
        Disconnected: the provider cannot be asked now, and ``stale`` has ended.
        SettingsError: the login cannot be read or written.
    """
    with file.locked():
        now = clock()  # only here: others may have held the lock for long
        login = file.read()
        if login is None:
            raise Unauthenticated(f"Nobody is logged in at {file.server} any more; {LOG_IN}")
        tokens = login.tokens
        if tokens.access_token != stale and tokens.is_fresh(now):
            return tokens.access_token
        if tokens.refresh_token is None:
            raise _ended(login, "it has no refresh token")
        try:
            fresh = _ask(login.registration, tokens, tokens.refresh_token, now)
        except Refusal as refusal:
            if refusal.code == "invalid_grant":  # for ever: the provider is not asked again
                file.write(replace(login, tokens=replace(tokens, refresh_token=None)))
            raise _ended(login, f"the provider says {refusal}") from None
        except Disconnected:
            if tokens.expires_at is not None and now < tokens.expires_at:
                return tokens.access_token
            raise
        file.write(replace(login, tokens=fresh))
        return fresh.access_token


def _ask(registration: Registration, tokens: Tokens, refresh_token: str, now: float) -> Tokens:
    # No scope: without one it is that of the login, and a provider may refuse any other.
    form = asked_for(registration)
    del form["scope"]
    form |= {"grant_type": "refresh_token", "refresh_token": refresh_token}
    with Provider(registration.issuer) as provider:
        return read_tokens(provider.post(provider.discover().token, form), now, tokens)


def _ended(login: Login, reason: str) -> Unauthenticated:
    return Unauthenticated(f"The login at {login.server} has ended ({reason}); {LOG_IN}")
