"""``python -m tests.parity``: play all on this machine and write ``promised.json`` anew."""

import asyncio
import tempfile
from pathlib import Path

from tests.parity.scenarios import SCENARIOS
from tests.parity.server import local_stage
from tests.parity.stage import play_all
from tests.parity.traces import promise


async def _main() -> None:
    with tempfile.TemporaryDirectory() as root:
        async with local_stage(Path(root)) as stage:
            promise(await play_all(stage, SCENARIOS, at_once=16))


if __name__ == "__main__":
    asyncio.run(_main())
