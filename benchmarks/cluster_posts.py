"""POST through the service beside the same Job posted raw, and beside the predecessor.

All of them by short turns on one control plane without nodes, so that whatever else the machine
does meets all of them: each posts into a namespace of its own, and the service follows its own.
"""

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Callable

from cluster_rivals import clients, predecessor
from cluster_site import PARAMETERS, PIPELINES, Plane, following, manifest_of, plane
from load import Row, Server, figures, percentile, post_request, send_many

CALLERS = 16
TURNS = 10  # a run
ONE, EACH = 20, 5  # POSTs a turn: of the one caller, of each of many
RAW = ("aiohttp", "httpx2", "lightkube")
SAME_CLIENT = "aiohttp"  # that of the service
BODY = json.dumps(PARAMETERS).encode()

Send = Callable[[int, int], tuple[list[float], float]]
"""(callers, POSTs each) -> (milliseconds of each, seconds in all)"""


def posts(runs: int) -> list[Row]:
    with plane() as site:
        names = {name: site.make_namespace(f"bench-{name}") for name in ("raw", "ours", "old")}
        with (
            following(site, names["ours"]) as server,
            clients(site.access) as raw,
            predecessor(site.kubeconfig, names["old"]) as old,
        ):
            manifest = manifest_of(server, PIPELINES[0])
            manifest["metadata"]["namespace"] = names["raw"]

            def by_client(client: str) -> Send:
                def send(callers: int, each: int) -> tuple[list[float], float]:
                    found = raw.post(client, names["raw"], manifest, callers, each)
                    return found["times"], found["seconds"]

                return send

            query = f"/training-jobs?pipeline={PIPELINES[0]}"
            ours = post_request(server.host, server.port, query, server.token, BODY)
            query = f"/training-jobs?pipeline_step={PIPELINES[0]}"
            theirs = post_request(old.host, old.port, query, body=BODY)
            senders = {
                "service": _by_http(server.host, server.port, ours, 201),
                **{f"raw {client}": by_client(client) for client in RAW},
                "predecessor": _by_http(old.host, old.port, theirs, 200),
            }
            one, many = _measure(runs, senders, lambda: _clean(site, server, names))
    return _rows(one, many)


def _by_http(host: str, port: int, request: bytes, status: int) -> Send:
    def send(callers: int, each: int) -> tuple[list[float], float]:
        began = time.perf_counter()
        took = asyncio.run(send_many(host, port, request, callers, each, status=status))
        return took, time.perf_counter() - began

    return send


def _measure(
    runs: int, senders: dict[str, Send], clean: Callable[[], None]
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    one: dict[str, list[float]] = defaultdict(list)
    many: dict[str, list[float]] = defaultdict(list)
    _by_turns(senders, 1, 50, 1)  # what is made once: connections, caches, compiled code
    _by_turns(senders, CALLERS, EACH, 1)
    clean()
    for _ in range(runs):
        for name, (took, _) in _by_turns(senders, 1, ONE, TURNS).items():
            one[name].append(percentile(took, 0.5))
        clean()
        for name, (took, seconds) in _by_turns(senders, CALLERS, EACH, TURNS).items():
            many[name].append(len(took) / seconds)
        clean()
    return one, many


def _by_turns(
    senders: dict[str, Send], callers: int, each: int, turns: int
) -> dict[str, tuple[list[float], float]]:
    """What each took, over all its turns."""
    found: dict[str, tuple[list[float], float]] = {name: ([], 0.0) for name in senders}
    order = list(senders)
    for _ in range(turns):
        for name in order:
            took, seconds = senders[name](callers, each)
            found[name] = (found[name][0] + took, found[name][1] + seconds)
        order = order[1:] + order[:1]
    return found


def _clean(site: Plane, server: Server, names: dict[str, str]) -> None:
    """Empty everything, and let the service have noticed before anybody is measured again."""
    for namespace in names.values():
        site.empty(namespace)
    while active(server):
        time.sleep(0.05)


def active(server: Server) -> int:
    return len(json.loads(server.request("GET", "/training-jobs?state=active&limit=1")[1]))


def ratios(above: list[float], below: list[float]) -> list[float]:
    return [one / other for one, other in zip(above, below, strict=True)]


def _rows(one: dict[str, list[float]], many: dict[str, list[float]]) -> list[Row]:
    ours, raw, old = "service", f"raw {SAME_CLIENT}", "predecessor"
    rows = [figures(f"POST, one caller, p50: {name}", "ms", "", one[name]) for name in one]
    rows += [
        figures(
            f"POST, one caller: service / {raw}", "x", "at most 1.5", ratios(one[ours], one[raw])
        ),
        figures(
            f"POST, one caller: service / {old}", "x", "at most 0.5", ratios(one[ours], one[old])
        ),
    ]
    rows += [
        figures(f"POST, {CALLERS} callers: {name}", "accepted/s", "", many[name]) for name in many
    ]
    rows += [
        figures(
            f"POST, {CALLERS} callers: service / {raw}",
            "x",
            "at least 0.6",
            ratios(many[ours], many[raw]),
        ),
        figures(
            f"POST, {CALLERS} callers: service / {old}",
            "x",
            "at least 2.5",
            ratios(many[ours], many[old]),
        ),
    ]
    return sorted(rows, key=lambda row: (str(row["what"]).split(":")[0], "/" in str(row["what"])))
