"""Counts what passes to an API server: ``counting_proxy.py PORT SERVER CA CERT KEY``.

Plain HTTP on loopback, with an administrator's certificate behind it; ``GET /counts`` answers what
was asked so far, by verb and resource, as JSON. Answers are passed on as they come.
"""

import contextlib
import ssl
import sys
from collections import Counter

import aiohttp
from aiohttp import web

HOP = {
    "connection",
    "host",
    "keep-alive",
    "transfer-encoding",
    "content-length",
    "content-encoding",
}
NAMED = {"GET": ("list", "get"), "DELETE": ("deletecollection", "delete")}
VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch"}


def kind(method: str, path: str, query: str) -> str:
    """Verb and resource as RBAC names them: ``create jobs``, ``watch pods``, ``get pods/log``."""
    root, *parts = path.strip("/").split("/")
    if root not in ("api", "apis"):
        return f"{method} /{root}"
    parts = parts[1 if root == "api" else 2 :]
    if parts[:1] == ["namespaces"] and len(parts) > 2:
        parts = parts[2:]
    resource, name, *sub = [*parts, ""] if len(parts) == 1 else parts
    if "watch=" in query:
        verb = "watch"
    elif method in NAMED:
        verb = NAMED[method][bool(name)]
    else:
        verb = VERBS.get(method, method)
    dry = " (dry run)" if "dryRun" in query else ""
    return f"{verb} {'/'.join([resource, *sub])}{dry}"


def application(server: str, context: ssl.SSLContext) -> web.Application:
    counts: Counter[str] = Counter()
    sessions: list[aiohttp.ClientSession] = []

    async def connect(_: web.Application):
        connector = aiohttp.TCPConnector(ssl=context, limit=0)
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(
            connector=connector, timeout=timeout, auto_decompress=False
        ) as session:
            sessions.append(session)
            yield

    async def pass_on(request: web.Request) -> web.StreamResponse:
        if request.path == "/counts":
            return web.json_response(counts)
        counts[kind(request.method, request.path, request.query_string)] += 1
        headers = {k: v for k, v in request.headers.items() if k.lower() not in HOP}
        async with sessions[0].request(
            request.method, server + request.path_qs, data=await request.read(), headers=headers
        ) as found:
            kept = {
                k: v
                for k, v in found.headers.items()
                if k.lower() not in HOP - {"content-encoding"}
            }
            answer = web.StreamResponse(status=found.status, headers=kept)
            await answer.prepare(request)
            with contextlib.suppress(ConnectionResetError):  # whoever asked is gone
                async for chunk in found.content.iter_any():
                    await answer.write(chunk)
                await answer.write_eof()
            return answer

    app = web.Application(client_max_size=1 << 24)
    app.cleanup_ctx.append(connect)
    app.router.add_route("*", "/{path:.*}", pass_on)
    return app


if __name__ == "__main__":
    port, server, ca, certificate, key = sys.argv[1:]
    context = ssl.create_default_context(cafile=ca)
    context.load_cert_chain(certificate, key)
    web.run_app(
        application(server, context), host="127.0.0.1", port=int(port), print=None, access_log=None
    )
