"""A server that takes some tokens and no other, and keeps which it was shown.

It answers ``GET /pipelines`` with none of them, which is all that a test of tokens needs.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class BearerServer:
    """``good`` None: every token is."""

    def __init__(self) -> None:
        self.good: set[str] | None = None
        self.shown: list[str | None] = []
        self.redirect: str | None = None
        self.meanwhile: Callable[[], object] = lambda: None
        """is done before each answer"""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                given = self.headers.get("Authorization")
                token = given and given.removeprefix("Bearer ")
                outer.shown.append(token)
                outer.meanwhile()
                good = outer.good is None or token in outer.good
                status = 307 if outer.redirect else 200 if good else 401
                body = json.dumps([] if good else {"status": 401, "type": "/problems/x"}).encode()
                self.send_response(status)
                if outer.redirect:
                    self.send_header("Location", outer.redirect + self.path)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@contextmanager
def bearer_server() -> Iterator[BearerServer]:
    """One at work."""
    one = BearerServer()
    thread = threading.Thread(target=one.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield one
    finally:
        one.server.shutdown()
        thread.join()
        one.server.server_close()
