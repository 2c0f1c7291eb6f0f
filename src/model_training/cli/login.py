"""``login`` and ``logout``: a person's own login at the OpenID provider of a server."""

import threading
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from model_training.cli.talk import Talk
from model_training.cli.terminal import inert
from model_training.client.exchange import Disconnected
from model_training.errors import AccessUnavailable, ServerUnreachable, SettingsError

if TYPE_CHECKING:
    from model_training.client.address import AddressFinder
    from model_training.client.device_flow import DeviceCode
    from model_training.client.logins import Login, LoginFile, Registration, Tokens

# Without offline_access most providers give no refresh token, and a job would outlive the login.
SCOPE = "openid offline_access"
SOON_S = 600.0  # an access token that ends within this time is nothing to warn of


@click.command
@click.option("--issuer", metavar="URL", help="The OpenID provider, exactly as its tokens have it.")
@click.option("--client-id", metavar="ID", help="What this command is called there.")
@click.option("--scope", metavar="S", help=f"What is asked for.  [default: {SCOPE}]")
@click.option("--audience", metavar="A", help="The service the token is for, if it must be named.")
@click.pass_obj
def login_command(talk: Talk, **chosen: str | None) -> None:
    """Log in at the OpenID provider of the server, by any browser.

    An option that is not given is that of client.toml, or else of the last login here. The login
    is kept for this user alone, and refreshed by whatever uses it.
    """
    from model_training.client.logins import Login, LoginFile
    from model_training.client.origins import require_private

    talk.aim = "log in"
    finder = talk.finder()
    server = _server(finder)
    require_private(server, "A login")
    file = LoginFile(server)
    registration = _registration(server, file, chosen)
    tokens = _asked(talk, registration)
    with file.locked():
        before = _read_to_end_it(file)
        file.write(Login(server=file.server, registration=registration, tokens=tokens))
    if before is not None and before.tokens.refresh_token != tokens.refresh_token:
        _not_revoked(before)  # of no use to anybody but a thief; that it failed changes nothing
    _tell(talk, finder, file, tokens)


@click.command
@click.pass_obj
def logout_command(talk: Talk) -> None:
    """Forget the login at the server, and have the provider end it."""
    from model_training.client.logins import LoginFile

    talk.aim = "log out"
    file = LoginFile(_server(talk.finder()))
    with file.locked():
        was_there = file.exists()
        login = _read_to_end_it(file)
        file.remove()
    if not was_there:
        talk.say(f"nobody was logged in at {file.server}")
        return
    talk.say(f"logged out at {file.server}")
    if login is not None and not login.tokens.is_over(time.time() + SOON_S):
        talk.say(f"its access token can be withdrawn by nobody, and ends {_when(login.tokens)}")
    if (reason := _not_revoked(login)) is not None:
        talk.say(
            f"warning: the provider was not told, so the login may be good there yet: {reason}"
        )


def _read_to_end_it(file: "LoginFile") -> "Login | None":
    try:
        return file.read(to_end_it=True)
    except SettingsError:  # damaged: nobody can tell what there would be to end
        return None


def _server(finder: "AddressFinder") -> str:
    try:
        return finder.url()
    except Disconnected as cut:
        raise ServerUnreachable(f"{cut.why}; or name one by MODEL_TRAINING_URL") from None


def _registration(server: str, file: "LoginFile", chosen: dict[str, str | None]) -> "Registration":
    from model_training.client.client_file import client_file, server_table
    from model_training.client.logins import Registration

    try:
        login = file.read()
    except SettingsError:  # it is about to be replaced
        login = None
    sources = [chosen, asdict(server_table(server)), asdict(login.registration) if login else {}]
    issuer = next((source["issuer"] for source in sources if source.get("issuer")), None)
    # What was meant for another provider is none of this one's business.
    own = [source for source in sources if source.get("issuer") in (None, issuer)]

    def option(name: str) -> str | None:
        return next((source[name] for source in own if source.get(name)), None)

    client_id = option("client_id")
    if issuer is None or client_id is None:
        raise SettingsError(
            f"Which OpenID provider the server {server} believes is not known here; give --issuer "
            f"and --client-id, or write them into {client_file()}."
        )
    scope = option("scope") or SCOPE
    return Registration(
        issuer=issuer, client_id=client_id, scope=scope, audience=option("audience")
    )


def _asked(talk: Talk, registration: "Registration") -> "Tokens":
    from model_training.client.device_flow import request_code, wait_for_tokens
    from model_training.client.openid import Provider

    try:
        with Provider(registration.issuer) as provider:
            endpoints = provider.discover()
            code = request_code(provider, endpoints, registration)
            _show(talk, code)
            pause = threading.Event().wait
            return wait_for_tokens(provider, endpoints, registration, code, pause)
    except Disconnected as cut:
        raise AccessUnavailable(f"The provider cannot be asked now: {cut.why}") from None


def _show(talk: Talk, code: "DeviceCode") -> None:
    talk.say(f"open this page:  {inert(code.verification_uri)}")
    talk.say(f"and enter:       {inert(code.user_code)}")
    if code.verification_uri_complete:
        talk.say(f"or open:         {inert(code.verification_uri_complete)}")
    talk.say(f"waiting for it, at most {code.lifetime_s / 60:.0f} min")


def _tell(talk: Talk, finder: "AddressFinder", file: "LoginFile", tokens: "Tokens") -> None:
    from model_training.client.bearer_tokens import claims_of

    claims = claims_of(tokens.access_token)
    who = claims.get("preferred_username") or claims.get("sub") or "somebody"
    talk.say(f"logged in at {file.server} as {inert(str(who))}")
    if not claims:
        talk.say(
            "warning: the token is no JWT, which the service refuses; is an --audience missing?"
        )
    if tokens.refresh_token is None:
        talk.say(f"warning: there is no refresh token, so the login ends {_when(tokens)}")
    if not finder.shows_login(file.server):
        talk.say(
            "warning: something else goes before this login: MODEL_TRAINING_TOKEN, a token file, "
            "or a token_command of client.toml"
        )


def _when(tokens: "Tokens") -> str:
    if tokens.expires_at is None:
        return "when the provider says so"
    return f"in {max(0.0, tokens.expires_at - time.time()) / 60:.0f} min"


def _not_revoked(login: "Login | None") -> str | None:
    """Have the provider end the login; why it did not, or None."""
    from model_training.client.openid import Provider

    if login is None:
        return "what was kept could not be used"
    token = login.tokens.refresh_token
    if token is None:
        return None  # the access token ends by itself, and soon
    form = {
        "client_id": login.registration.client_id,
        "token": token,
        "token_type_hint": "refresh_token",
    }
    try:
        with Provider(login.registration.issuer) as provider:
            url = provider.discover().revocation
            if url is None:
                return "it has no revocation_endpoint"
            provider.revoke(url, form)
    except Disconnected as cut:
        return cut.why
    except SettingsError as error:
        return error.message
    return None
