"""How long it takes to know whether an image is there, beside a real registry. By hand.

    .venv/bin/python -m benchmarks.images [--times N]

Needs docker-registry. Prints JSON, in milliseconds (median, p99, worst): `cold` with a new client
(its connections, the login, the labels), `again` once what is known of the tag has ended, `cached`
in between, `away` for a registry that refuses the connection; each as a pipeline is resolved, its
labels read.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from model_training.errors import RegistryUnavailable
from model_training.images.credentials import DockerConfig
from model_training.images.reference import parse_registry
from model_training.images.registry import PRESENT_S, RegistryClient
from model_training.pipelines.images import ImageNames, RegistrySource
from tests.cluster.images.conftest import HTPASSWD
from tests.cluster.images.content import Pusher
from tests.cluster.images.registries import registry, require_programs

PARAMETERS = {f"p{n}": {"type": "integer", "default": n, "minimum": 0} for n in range(20)}
LABELS = {"model-training.parameters": json.dumps(PARAMETERS)}


async def known() -> list[str]:
    return []


class Bench:
    def __init__(self, host: str, config: DockerConfig | None) -> None:
        self.host = host
        self.config = config
        self.passed = 0.0  # seconds by which the clock of the client is ahead
        self.client: RegistryClient | None = None
        self.source: RegistrySource | None = None

    async def close(self) -> None:
        if self.client:
            await self.client.aclose()

    async def renew(self) -> None:
        await self.close()
        self.client = RegistryClient(self.config, now=lambda: time.monotonic() + self.passed)
        names = ImageNames(parse_registry(self.host), "latest")
        self.source = RegistrySource(names, self.client.check, known)

    async def resolve(self) -> None:
        assert self.source
        await self.source.resolve("digits")

    async def outdate(self) -> None:
        self.passed += PRESENT_S

    async def nothing(self) -> None:
        pass

    async def measure(self, times: int) -> dict[str, dict[str, float]]:
        found = {"cold": await timed(times, self.resolve, before=self.renew)}
        found["again"] = await timed(times, self.resolve, before=self.outdate)
        found["cached"] = await timed(times * 20, self.resolve, before=self.nothing)
        await self.close()
        return found

    async def away(self, times: int) -> dict[str, float]:
        async def refused() -> None:
            try:
                await self.resolve()
            except RegistryUnavailable:
                return
            raise AssertionError("it is there")

        found = await timed(times, refused, before=self.renew)
        await self.close()
        return found


async def timed(
    times: int, act: Callable[[], Awaitable[None]], before: Callable[[], Awaitable[None]]
) -> dict[str, float]:
    took: list[float] = []
    for _ in range(times):
        await before()
        began = time.perf_counter()
        await act()
        took.append((time.perf_counter() - began) * 1e3)
    took.sort()
    p99 = took[int(len(took) * 0.99)]
    return {
        "median": round(statistics.median(took), 3),
        "p99": round(p99, 3),
        "worst": round(took[-1], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=100)
    times = parser.parse_args().times
    require_programs()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "htpasswd").write_text(HTPASSWD)
        login = {"htpasswd": {"realm": "bench", "path": str(folder / "htpasswd")}}
        with (
            registry(folder / "open", folder / "storage") as free,
            registry(folder / "closed", folder / "storage", auth=login) as closed,
        ):
            Pusher(free.url).image("model-training-digits", labels=LABELS)
            config = folder / "config.json"
            auths = {closed.host: {"username": "lea", "password": "s3cret"}}
            config.write_text(json.dumps({"auths": auths}))
            bench = Bench(free.host, None)
            found: dict[str, object] = {"open": asyncio.run(bench.measure(times))}
            guarded = Bench(closed.host, DockerConfig(config))
            found["login"] = asyncio.run(guarded.measure(times))
        found["away"] = asyncio.run(Bench(free.host, None).away(times))
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
