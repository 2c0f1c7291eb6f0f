"""Ask a container runtime whether it serves its CRI.

The socket is there before that: containerd refuses every question of the CRI until it has looked
at what it left behind, and a kubelet that asks meanwhile ends. There is nothing else to see it by,
so this speaks as much gRPC as one question without content takes
(https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md): an answer has content, a refusal
comes as headers alone.
"""

import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

DATA, HEADERS, SETTINGS, GOAWAY = 0, 1, 4, 7  # kinds of frames, RFC 9113, section 6
END_STREAM, END_HEADERS = 1, 4
STREAM = 1
EMPTY_MESSAGE = bytes(5)  # not compressed, no bytes


def serves(path: Path, seconds: float = 2.0) -> bool:
    """Whether the runtime that listens on this socket answers ``Version``."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(seconds)
            connection.connect(str(path))
            connection.sendall(_question("/runtime.v1.RuntimeService/Version"))
            with connection.makefile("rb") as answer:
                return any(kind == DATA and size for kind, size in _frames(answer))
    except OSError:
        return False


def _question(method: str) -> bytes:
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": method,
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    # Literal fields with new names, RFC 7541, section 6.2.2; all are shorter than 127 bytes.
    literals = b"".join(
        b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in fields.items()
    )
    return (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        + _frame(SETTINGS, 0, 0, b"")
        + _frame(HEADERS, END_HEADERS, STREAM, literals)
        + _frame(DATA, END_STREAM, STREAM, EMPTY_MESSAGE)
    )


def _frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    return struct.pack(">I", len(content))[1:] + struct.pack(">BBI", kind, flags, stream) + content


def _frames(answer: BinaryIO) -> Iterator[tuple[int, int]]:
    """Kind and size of each frame until our stream or the connection ends."""
    while len(header := answer.read(9)) == 9:
        size = int.from_bytes(header[:3], "big")
        kind, flags, stream = struct.unpack(">BBI", header[3:])
        answer.read(size)
        yield kind, size
        if kind == GOAWAY or (stream == STREAM and flags & END_STREAM):
            return
