"""An OpenID provider on loopback that misbehaves as a test says.

Left alone it is an honest one, whose refresh tokens are good once: a second use of one ends the
login, as a provider does that takes it for theft. What it answers instead is put in by the test,
by path and in turn.
"""

import base64
import itertools
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl

DISCOVERY = "/.well-known/openid-configuration"
Form = dict[str, str]


def jwt(**claims: object) -> str:
    """A token that says this, signed by nobody."""
    parts = ({"alg": "RS256"}, claims)
    encoded = (base64.urlsafe_b64encode(json.dumps(part).encode()).decode() for part in parts)
    return ".".join([*(part.rstrip("=") for part in encoded), "signature"])


class FakeIssuer:
    """What it was asked is in ``asked``, without discovery; what it gave in ``tokens``."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Form]] = []
        self.tokens: list[str] = []
        self.revoked: list[str] = []
        self.lifetime: object = 600
        self.refreshable = True
        self.instead: dict[str, list[tuple[int, object, dict[str, str]]]] = {}
        self.may_answer = threading.Event()
        """no answer to a refresh before it is set"""
        self.may_answer.set()
        self._good_refresh = ""
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer({})

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self._answer(dict(parse_qsl(body.decode(), keep_blank_values=True)))

            def _answer(self, form: Form) -> None:
                status, value, headers = outer.answer(self.path, form)
                body = value if isinstance(value, bytes) else json.dumps(value).encode()
                self.send_response(status)
                for name, text in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(name, text)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                """Who asked has gone: some tests are about that."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.document: dict[str, object] = {
            "issuer": self.url,
            "token_endpoint": f"{self.url}/token",
            "device_authorization_endpoint": f"{self.url}/device",
            "revocation_endpoint": f"{self.url}/revoke",
        }
        self.code: dict[str, object] = {
            "device_code": "secret-device-code", "user_code": "ABCD-EFGH",
            "verification_uri": "https://login.example.org/device",
            "verification_uri_complete": "https://login.example.org/device?user_code=ABCD-EFGH",
            "expires_in": 600, "interval": 0,
        }  # fmt: skip

    def put(self, path: str, *answers: object, status: int = 200, **headers: str) -> None:
        """Answer the next requests for a path with these, one each."""
        self.instead.setdefault(path, []).extend((status, answer, headers) for answer in answers)

    def refuse(self, path: str, *codes: str, **more: str) -> None:
        """Say no, with these codes of OAuth."""
        self.put(path, *({"error": code, **more} for code in codes), status=400)

    def answer(self, path: str, form: Form) -> tuple[int, object, dict[str, str]]:
        if path != DISCOVERY:
            self.asked.append((path, form))
        if self.instead.get(path):
            return self.instead[path].pop(0)
        if path == DISCOVERY:
            return 200, self.document, {}
        if path == "/device":
            return 200, self.code, {}
        if path == "/revoke":
            self.revoked.append(form["token"])
            return 200, b"", {}
        if path == "/token":
            return self._token(form)
        return 404, b"", {}

    def _token(self, form: Form) -> tuple[int, object, dict[str, str]]:
        if form["grant_type"] == "refresh_token":
            self.may_answer.wait()
        with self._lock:
            shown = form.get("refresh_token")
            if shown is not None and shown != self._good_refresh:
                self._good_refresh = ""
                return 400, {"error": "invalid_grant"}, {}
            number = next(self._numbers)
            self.tokens.append(jwt(sub="lea", jti=str(number)))
            answer = {
                "access_token": self.tokens[-1], "token_type": "Bearer",
                "expires_in": self.lifetime,
            }  # fmt: skip
            if self.refreshable:
                self._good_refresh = f"secret-refresh-{number}"
                answer["refresh_token"] = self._good_refresh
            return 200, answer, {}

    @property
    def refreshes(self) -> int:
        """How often it was asked for new tokens."""
        return sum(form.get("grant_type") == "refresh_token" for _, form in self.asked)


@contextmanager
def fake_issuer() -> Iterator[FakeIssuer]:
    """One at work."""
    issuer = FakeIssuer()
    thread = threading.Thread(target=issuer.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield issuer
    finally:
        issuer.may_answer.set()
        issuer.server.shutdown()
        thread.join()
        issuer.server.server_close()
