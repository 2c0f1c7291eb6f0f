"""A server that gives tokens, as the token flow of registries has it; signed for real.

Knows one person, ``lea`` with the password ``s3cret`` or the identity token ``long-lived``, who
may pull everything; nobody else gets anything.
"""

import base64
import json
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

ISSUER = "tests"
SERVICE = "registry of the tests"
LOGIN = "Basic " + base64.b64encode(b"lea:s3cret").decode()
IDENTITY = "long-lived"


class TokenServer(ThreadingHTTPServer):
    """Answers ``/token``."""

    daemon_threads = True

    def __init__(self, certificate: Path, key: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.certificate = certificate
        self.key = key
        self.asked: list[dict[str, str]] = []
        """what each request asked for"""

    @property
    def realm(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/token"

    def token(self, scope: str) -> str:
        kind, _, rest = scope.partition(":")
        name, _, actions = rest.rpartition(":")
        pem = self.certificate.read_text().splitlines()
        header = {"typ": "JWT", "alg": "RS256", "x5c": ["".join(pem[1:-1])]}
        now = int(time.time())
        claims = {
            "iss": ISSUER, "sub": "lea", "aud": SERVICE, "jti": uuid.uuid4().hex,
            "nbf": now - 5, "iat": now, "exp": now + 300,
            "access": [{"type": kind, "name": name, "actions": actions.split(",")}],
        }  # fmt: skip
        text = ".".join(_base64url(json.dumps(part).encode()) for part in (header, claims))
        signing = ["openssl", "dgst", "-sha256", "-sign", str(self.key)]
        signature = subprocess.run(signing, input=text.encode(), check=True, capture_output=True)
        return f"{text}.{_base64url(signature.stdout)}"


class _Handler(BaseHTTPRequestHandler):
    server: TokenServer

    def do_GET(self) -> None:
        query = _first(urlsplit(self.path).query)
        self._answer(query, known=self.headers.get("Authorization") == LOGIN)

    def do_POST(self) -> None:
        form = _first(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self._answer(form, known=form.get("refresh_token") == IDENTITY)

    def _answer(self, asked: dict[str, str], *, known: bool) -> None:
        self.server.asked.append({"method": self.command, **asked})
        wanted = known and asked.get("service") == SERVICE
        body = {"token": self.server.token(asked["scope"]), "expires_in": 300} if wanted else {}
        content = json.dumps(body).encode()
        self.send_response(200 if wanted else 401)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 the base's name
        """Say nothing."""


@contextmanager
def token_server(certificate: Path, key: Path) -> Iterator[TokenServer]:
    with TokenServer(certificate, key) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _first(query: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(query).items()}
