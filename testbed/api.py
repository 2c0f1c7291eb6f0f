"""Ask an HTTP server of the cluster something; the smallest client that will do."""

import http.client
import json
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from testbed.errors import ClusterError


@dataclass(frozen=True)
class Api:
    """One server: where it is, and as whom it is asked.

    Attributes:
        url: ``http://`` or ``https://`` with host and port.
        authority: the certificate that vouches for it; without one nobody is asked to.
        pair: our certificate and key.
    """

    url: str
    authority: Path | None = None
    pair: tuple[Path, Path] | None = None

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: dict[str, str] | None = None,
        seconds: float = 5.0,
    ) -> tuple[int, dict[str, str], bytes]:
        """Send one request; status, headers with lower-case names, and content of the answer.

        A body that is not bytes is sent as JSON.

        Raises:
            OSError: no answer within so many seconds.
        """
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection = self._connection(seconds)
        try:
            all_headers = {"Content-Type": "application/json", **(headers or {})}
            connection.request(method, path, content, all_headers)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, found, answer.read()
        except http.client.HTTPException as error:
            raise ConnectionError(str(error) or type(error).__name__) from error
        finally:
            connection.close()

    def get(self, path: str) -> dict:
        """The object at a path.

        Raises:
            ClusterError: the answer is not 200.
        """
        return self._object("GET", path, None)

    def post(self, path: str, body: object) -> dict:
        """Create an object; the object as it is then.

        Raises:
            ClusterError: the answer is not 200 or 201.
        """
        return self._object("POST", path, body)

    def delete(self, path: str) -> dict:
        """Delete an object, its dependents in the background."""
        return self._object("DELETE", path, {"propagationPolicy": "Background"})

    def answers(self, path: str, status: int = 200) -> bool:
        """Whether it answers with this status, now."""
        try:
            return self.request("GET", path)[0] == status
        except OSError:
            return False

    def _object(self, method: str, path: str, body: object) -> dict:
        try:
            status, _, content = self.request(method, path, body, seconds=30.0)
        except OSError as error:
            raise ClusterError(f"{method} {self.url}{path}: {error}") from error
        if status not in (200, 201, 202):
            raise ClusterError(f"{method} {path} was answered {status}: {content.decode()[:500]}")
        return json.loads(content or b"{}")

    def _connection(self, seconds: float) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        host, port = parts.hostname or "", parts.port
        if parts.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=seconds)
        context = ssl.create_default_context(cafile=self.authority)
        if not self.authority:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if self.pair:
            context.load_cert_chain(*self.pair)
        return http.client.HTTPSConnection(host, port, timeout=seconds, context=context)
