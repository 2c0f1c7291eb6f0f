"""Credentials from a program, as kubeconfig's ``users[].user.exec`` names one.

Clusters of all large providers log in that way (``aws eks get-token``, ``gke-gcloud-auth-plugin``,
``kubelogin``). The protocol: https://kubernetes.io/docs/reference/config-api/client-authentication.v1/
"""

import asyncio
import logging
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
from msgspec import Struct

from model_training.errors import ExecutorUnavailable
from model_training.executors.kubernetes.credentials import Certificate, Grant, checked_token

API_VERSIONS: Final = (
    "client.authentication.k8s.io/v1",
    "client.authentication.k8s.io/v1beta1",
)
RUN_S: Final = 60.0  # a plugin may have to ask an identity provider, which may be slow
EARLY: Final = timedelta(seconds=10)  # renewed before it ends, for calls that are on their way
SHOWN: Final = 500  # characters of what the plugin printed on stderr

_OPAQUE: Final = re.compile(
    r"(?=[^\s:]*[0-9])[\w+/.=~-]{24,}"
)  # tokens and keys; words are shorter

logger = logging.getLogger(__name__)


class Plugin(Struct, frozen=True, kw_only=True):
    """A program that prints credentials, and how to start it."""

    command: str
    args: tuple[str, ...]
    env: Mapping[str, str]
    """over our own environment"""
    api_version: str
    cluster: Mapping[str, object] | None
    """told to the program, where the kubeconfig says so"""
    install_hint: str

    def __repr__(self) -> str:  # arguments and variables may be secrets
        return f"Plugin({self.command!r})"


class _Status(Struct, rename="camel"):
    token: str | None = None
    client_certificate_data: str | None = None
    client_key_data: str | None = None
    expiration_timestamp: datetime | None = None


class _ExecCredential(Struct, rename="camel"):
    api_version: str
    status: _Status | None = None


class PluginCredentials:
    """What the program prints, until it ends or is refused. One run at a time serves everybody."""

    def __init__(self, plugin: Plugin) -> None:
        self._plugin = plugin
        self._lock = asyncio.Lock()
        self._grant: Grant | None = None
        self._ends: datetime | None = None
        self._complained = ""

    async def grant(self) -> Grant:
        """What was printed last, or anew where that ends soon."""
        async with self._lock:
            if self._grant is None or (self._ends and datetime.now(UTC) + EARLY >= self._ends):
                return await self._ask()
            return self._grant

    async def renew(self, refused: Grant) -> Grant:
        """Run the program again, unless somebody else did so meanwhile."""
        async with self._lock:
            if self._grant is None or self._grant == refused:
                return await self._ask()
            return self._grant

    async def _ask(self) -> Grant:
        status = self._parse(await self._run())
        try:
            token = None if status.token is None else checked_token(status.token)
        except ValueError:
            raise self._failed("its token cannot stand in a header") from None
        certificate = None
        if status.client_certificate_data and status.client_key_data:
            certificate = Certificate(status.client_certificate_data, status.client_key_data)
        if token is None and certificate is None:
            raise self._failed("it printed neither a token nor a certificate with its key")
        ends = status.expiration_timestamp
        if ends is not None and ends.tzinfo is None:
            raise self._failed("its expirationTimestamp has no time zone")
        self._grant, self._ends = Grant(token, certificate), ends
        return self._grant

    def _parse(self, printed: bytes) -> _Status:
        try:
            credential = msgspec.json.decode(printed, type=_ExecCredential)
        except (msgspec.DecodeError, ValueError):  # not shown: half of it may be a token
            raise self._failed("it did not print an ExecCredential as JSON") from None
        if credential.api_version != self._plugin.api_version:
            raise self._failed(
                f"it answered in another version than {self._plugin.api_version}, "
                "which the kubeconfig names"
            )
        return credential.status or _Status()

    async def _run(self) -> bytes:
        plugin = self._plugin
        try:
            process = await asyncio.create_subprocess_exec(
                plugin.command,
                *plugin.args,
                env={**os.environ, **plugin.env, "KUBERNETES_EXEC_INFO": self._info()},
                stdin=asyncio.subprocess.DEVNULL,  # nobody is there to answer a question
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            raise self._failed(f"it cannot be started: {error.strerror}") from None
        try:
            async with asyncio.timeout(RUN_S):
                printed, complaints = await process.communicate()
        except TimeoutError:
            raise self._failed(f"it did not end within {RUN_S:.0f} s") from None
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if process.returncode:
            said = _OPAQUE.sub("...", complaints.decode(errors="replace")).strip()[-SHOWN:]
            self._complain(said)
            told = ", and said why in the log" if said else ""
            raise self._failed(f"it ended with {process.returncode}{told}")
        self._complained = ""
        return printed

    def _complain(self, said: str) -> None:
        """Tell the log, once: the words of a foreign program are for whoever runs the service."""
        if said and said != self._complained:
            logger.warning("The credential plugin %r: %s", self._plugin.command, said)
        self._complained = said

    def _info(self) -> str:
        spec: dict[str, object] = {"interactive": False}
        if self._plugin.cluster is not None:
            spec["cluster"] = self._plugin.cluster
        info = {"apiVersion": self._plugin.api_version, "kind": "ExecCredential", "spec": spec}
        return msgspec.json.encode(info).decode()

    def _failed(self, reason: str) -> ExecutorUnavailable:
        hint = f" {self._plugin.install_hint.strip()}" if self._plugin.install_hint else ""
        return ExecutorUnavailable(
            f"The credential plugin {self._plugin.command!r} of the kubeconfig failed: "
            f"{reason}.{hint}"
        )
