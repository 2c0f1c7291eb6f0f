"""An honest AuthZEN decision point that costs next to nothing: ``decision_point.py PORT``.

It says yes to everything, so that what is measured is the asking. A faster one makes the bound on
the product's own part a stricter one: real ones take some tenths of a millisecond longer, which
hide it. It counts what it is asked, and tells it, with the last question as it came, at ``/asked``.
"""

import asyncio
import json
import sys

import httptools
import uvloop

READY = "ready"


class Asked:
    """What came so far."""

    def __init__(self) -> None:
        self.requests: list[int] = []
        """questions in each"""
        self.path = ""
        self.body = ""

    def answer_to(self, path: str, body: bytes) -> object:
        if path == "/asked":
            return {"requests": self.requests, "path": self.path, "body": self.body}
        found = json.loads(body)
        questions = found.get("evaluations")
        self.requests.append(1 if questions is None else len(questions))
        self.path, self.body = path, body.decode()
        if questions is None:
            return {"decision": True}
        return {"evaluations": [{"decision": True}] * len(questions)}


class Connection(asyncio.Protocol):
    """One connection, kept for as long as the client keeps it."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._parser = httptools.HttpRequestParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._path, self._body = b"", b""

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        body = json.dumps(self._asked.answer_to(self._path.decode(), self._body)).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        self._transport.write(head.encode() + b"\r\n\r\n" + body)


async def serve(port: int) -> None:
    asked = Asked()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(asked), "127.0.0.1", port)
    print(READY, flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
