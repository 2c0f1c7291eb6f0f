"""What the figures of access are measured against: an issuer, its users' tokens, who decides.

Nothing here imports the product: tokens are made by PyJWT, and the files are those that an
operator would write.
"""

import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from load import ROOT, free_port

AUDIENCE = "model-training"
ROLES = """
[roles.scientist]
service = ["list"]
allow = [
    { actions = ["create", "list", "read", "read_logs", "read_outputs"], pipelines = ["fraud-*"] },
    { actions = ["stop", "delete"], pipelines = ["fraud-*"], owner = "self" },
]

[roles.operator]
service = ["list", "read"]
allow = [{ actions = ["*"], pipelines = ["*"] }]

[roles.reader]
service = ["list"]
allow = [{ actions = ["list", "read"], pipelines = ["pipeline-07"] }]

[roles.owner]
service = ["list"]
allow = [{ actions = ["list", "read"], pipelines = ["pipeline-07"], owner = "self" }]

[[bindings]]
role = "scientist"
groups = ["corp/data-science"]

[[bindings]]
role = "operator"
principals = ["local"]
groups = ["corp/operators"]

[[bindings]]
role = "reader"
groups = ["corp/readers"]

[[bindings]]
role = "owner"
groups = ["corp/owners"]
"""


class Issuer:
    """Who makes tokens, with its keys on a port of this process."""

    def __init__(self) -> None:
        self._keys = {
            "ES256": ec.generate_private_key(ec.SECP256R1()),
            "RS256": rsa.generate_private_key(65537, 2048),
        }
        keys = [
            {**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": name, "use": "sig"}
            for name, key in self._keys.items()
            for algorithm in [jwt.get_algorithm_by_name(name)]
        ]
        published = json.dumps({"keys": keys}).encode()

        class Published(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(published)))
                self.end_headers()
                self.wfile.write(published)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Published)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.jwks = f"http://127.0.0.1:{self._server.server_port}/keys"
        self.name = f"http://127.0.0.1:{self._server.server_port}/realms/ml"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def token(self, subject: str, algorithm: str = "ES256", groups: tuple[str, ...] = ()) -> str:
        """As long and as nested as those of the usual servers are."""
        now = int(time.time())
        claims = {
            "iss": self.name,
            "aud": [AUDIENCE, "account"],
            "sub": subject,
            "iat": now,
            "exp": now + 7200,
            "auth_time": now,
            "jti": f"onrtac:{subject}-6c7b1f5a-2f44-4f8e-9f0e-3a8d1f7f3c52",
            "azp": "training",
            "sid": "b7c0b1f4-53a5-4f0e-8a2b-0f3c1d2e4b5a",
            "acr": "1",
            "allowed-origins": ["https://dash.example.org"],
            "realm_access": {"roles": ["offline_access", "default-roles-ml", "uma_authorization"]},
            "resource_access": {"account": {"roles": ["manage-account", "view-profile"]}},
            "scope": "openid email profile",
            "email_verified": True,
            "name": "Lea Example",
            "preferred_username": subject,
            "email": f"{subject}@example.org",
            "groups": list(groups),
        }
        headers = {"kid": algorithm, "typ": "JWT"}
        return jwt.encode(claims, self._keys[algorithm], algorithm=algorithm, headers=headers)

    def signature_us(self, token: str, times: int = 200) -> float:
        """Microseconds of checking the token's signature and nothing else; the median."""
        signed, _, signature = token.rpartition(".")
        name = jwt.get_unverified_header(token)["alg"]
        algorithm = jwt.get_algorithm_by_name(name)
        key = self._keys[name].public_key()
        found = jwt.utils.base64url_decode(signature)
        took = []
        for _ in range(times):
            began = time.perf_counter()
            if not algorithm.verify(signed.encode(), key, found):
                raise RuntimeError("the signature is wrong")
            took.append(1e6 * (time.perf_counter() - began))
        return sorted(took)[times // 2]


@contextmanager
def issuing() -> Iterator[Issuer]:
    issuer = Issuer()
    try:
        yield issuer
    finally:
        issuer.close()


def access_file(folder: Path, issuer: Issuer, *decisions: str) -> Path:
    """An access file with the local token, the issuer, and what decides; by default roles."""
    (folder / "roles.toml").write_text(ROLES)
    lines = [
        "local_token = true",
        "[[issuers]]",
        'name = "corp"',
        f'issuer = "{issuer.name}"',
        f'audience = "{AUDIENCE}"',
        f'jwks = "{issuer.jwks}"',
        "[decisions]",
        *(decisions or ('engine = "roles"', 'file = "roles.toml"')),
    ]
    path = folder / "access.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def asking(url: str) -> tuple[str, ...]:
    """The lines of an access file that have a decision point asked."""
    return 'engine = "authzen"', f'url = "{url}"'


class DecisionPoint:
    """The one of ``decision_point.py``, as a process of its own."""

    def __init__(self) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen(
            [sys.executable, str(ROOT / "benchmarks/decision_point.py"), str(port)],
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout
        if not self._process.stdout.readline():
            raise RuntimeError("the decision point did not start")

    def asked(self) -> dict[str, Any]:
        """How many questions were in each request, and the path and body of the last."""
        with urllib.request.urlopen(f"{self.url}/asked") as answer:
            return json.loads(answer.read())

    def close(self) -> None:
        self._process.terminate()
        self._process.communicate(timeout=20)


@contextmanager
def deciding() -> Iterator[DecisionPoint]:
    point = DecisionPoint()
    try:
        yield point
    finally:
        point.close()


class BareQuestion:
    """The last question of the service, asked again by ``bare_question.py``."""

    def __init__(self, url: str, path: str, body: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(ROOT / "benchmarks/bare_question.py"), url + path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._say(body)

    def _say(self, line: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def ask(self) -> float:
        """Milliseconds of one round trip."""
        assert self._process.stdout
        self._say("again")
        return float(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate(timeout=20)
