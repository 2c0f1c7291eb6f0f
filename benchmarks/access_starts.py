"""What an access file costs a server before anybody asks: its start and its memory, by turns."""

import tempfile
import time
from pathlib import Path

from access_site import access_file, issuing
from load import Row, figures, serving


def starts(runs: int) -> list[Row]:
    ready: dict[str, list[float]] = {"open": [], "access": []}
    memory: dict[str, list[float]] = {"open": [], "access": []}
    with issuing() as issuer, tempfile.TemporaryDirectory(prefix="mt-bench-") as folder:
        access = access_file(Path(folder), issuer)
        token = issuer.token("olga", groups=("operators",))
        for _ in range(runs):
            for name, options in (("open", ()), ("access", ("--access", str(access)))):
                with serving("--slots", "1", *options) as server:
                    ready[name].append(server.ready_s)
                    asked = token if options else server.token
                    status, body = server.request(
                        "GET", "/training-jobs", Authorization=f"Bearer {asked}"
                    )
                    if status != 200:
                        raise RuntimeError(body.decode())
                    time.sleep(1)
                    memory[name].append(server.memory() / 2**20)
    return [
        figures("serve to ready, open", "s", "under 2", ready["open"]),
        figures("serve to ready, with an access file", "s", "under 2", ready["access"]),
        figures("idle memory of the server, open", "MiB", "under 80", memory["open"]),
        figures("idle memory of the server, with an access file", "MiB", "-", memory["access"]),
    ]
