"""A fake registry for what a real one does not do on request: be slow, overloaded, or hostile.

What it answers is scripted by path; it keeps what it was asked. All else is tested against a
real registry, in tests/cluster/images.
"""

import asyncio
import hashlib
import json
import socket
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from model_training.images.reference import ImageReference

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
ABSENT = json.dumps({"errors": [{"code": "MANIFEST_UNKNOWN"}]}).encode()


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


@dataclass
class Reply:
    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None
    """said instead of the body's own"""


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    headers: Mapping[str, str]
    """names in lower case"""
    body: bytes


class ScriptedRegistry:
    """``answers`` maps a path, or a method and a path, to a Reply or to what makes one."""

    def __init__(self, port: int) -> None:
        self.host = f"127.0.0.1:{port}"
        self.asked: list[Asked] = []
        self.answers: dict[str, Reply | Callable[[Asked], Reply]] = {}
        self.waits = asyncio.Event()
        """no answer before it is set"""
        self.waits.set()

    def image(self, repository: str, tag: str = "latest") -> ImageReference:
        return ImageReference(self.host, repository, tag)

    def hold(self, repository: str, labels: dict[str, str] | None = None) -> str:
        """Hold an image as a registry would; its digest."""
        config = json.dumps({"config": {"Labels": labels}}).encode()
        described = {"mediaType": CONFIG, "digest": digest_of(config), "size": len(config)}
        manifest = json.dumps({"mediaType": MANIFEST, "config": described, "layers": []}).encode()
        digest = digest_of(manifest)
        for target in ("latest", digest):
            path = f"/v2/{repository}/manifests/{target}"
            self.answers[path] = Reply(200, manifest, {"Docker-Content-Digest": digest})
        self.answers[self.blob(repository, config)] = Reply(200, config)
        return digest

    def blob(self, repository: str, content: bytes) -> str:
        return f"/v2/{repository}/blobs/{digest_of(content)}"

    def seen(self) -> list[tuple[str, str]]:
        return [(asked.method, asked.path) for asked in self.asked]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            asked = await _read(reader)
            self.asked.append(asked)
            await self.waits.wait()
            answer = self.answers.get(f"{asked.method} {asked.path}")
            answer = answer or self.answers.get(asked.path) or Reply(404, ABSENT)
            reply = answer(asked) if callable(answer) else answer
            length = len(reply.body) if reply.length is None else reply.length
            lines = [f"HTTP/1.1 {reply.status} X", f"Content-Length: {length}", "Connection: close"]
            lines += [f"{name}: {value}" for name, value in reply.headers.items()]
            writer.write("\r\n".join([*lines, "", ""]).encode())
            writer.write(b"" if asked.method == "HEAD" else reply.body)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # whoever asked has gone: some tests are about that
        finally:
            writer.close()


async def _read(reader: asyncio.StreamReader) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    method, path, _ = head[0].split(" ")
    fields = [line.partition(": ") for line in head[1:] if line]
    headers = {name.lower(): value for name, _, value in fields}
    return Asked(
        method, path, headers, await reader.readexactly(int(headers.get("content-length", 0)))
    )


@asynccontextmanager
async def scripted_registry() -> AsyncGenerator[ScriptedRegistry]:
    """One on a free port of loopback."""
    listener = socket.create_server(("127.0.0.1", 0))
    scripted = ScriptedRegistry(listener.getsockname()[1])
    async with await asyncio.start_server(scripted.serve, sock=listener):
        yield scripted
        scripted.waits.set()
