"""A server of key sets on loopback, which answers as a test says: also late, or wrongly."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

import orjson

Document = tuple[int, bytes, dict[str, str]]


class KeyServer:
    """What it answers is set by the test; it keeps which paths it was asked for."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.documents: dict[str, Document] = {}
        self.asked: list[str] = []
        self.connections = 0
        self.waits = Event()
        """no answer before it is set"""
        self.waits.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"  # keeps connections, as issuers do

            def setup(self) -> None:
                outer.connections += 1
                super().setup()

            def finish(self) -> None:
                super().finish()
                outer.connections -= 1

            def do_GET(self) -> None:
                outer.asked.append(self.path)
                outer.waits.wait()
                status, body, headers = outer.documents.get(self.path, (404, b"", {}))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                """Who asked has gone: some tests are about that."""

        self.server = Server(("127.0.0.1", 0), Handler)
        if tls is not None:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        scheme = "http" if tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self.server.server_port}"

    def put(self, path: str, value: object, status: int = 200, **headers: str) -> None:
        body = value if isinstance(value, bytes) else orjson.dumps(value)
        self.documents[path] = status, body, headers


@contextmanager
def running(tls: ssl.SSLContext | None = None) -> Iterator[KeyServer]:
    keys = KeyServer(tls)
    thread = Thread(target=keys.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield keys
    finally:
        keys.waits.set()
        keys.server.shutdown()
        thread.join()
        keys.server.server_close()
