"""One question to a decision point with nothing around it: ``bare_question.py URL``.

By the client and on the event loop that the service asks with, and with the very bytes that the
service asked last; on standard input comes the question, then a line for each time that it is to
be asked. Each answer is a line with the milliseconds that it took.
"""

import asyncio
import sys
import time

import aiohttp
import uvloop

HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "Content-Type": "application/json",
    "User-Agent": "model-training-api",
}


async def ask(url: str) -> None:
    lines = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    body = (await lines.readline()).strip()
    async with aiohttp.ClientSession(headers=HEADERS) as session:
        while await lines.readline():
            began = time.perf_counter()
            async with session.post(url, data=body) as answer:
                content = await answer.read()
            took = 1000 * (time.perf_counter() - began)
            if answer.status != 200:
                raise RuntimeError(content.decode())
            print(took, flush=True)


if __name__ == "__main__":
    uvloop.run(ask(sys.argv[1]))
