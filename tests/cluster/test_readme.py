"""The story of the README, on a real cluster: each command, and what it prints."""

import os
import re
import socket
import subprocess
from pathlib import Path

import pytest

from testbed.cluster import Cluster

ROOT = Path(__file__).parents[2]
HEADING = "## The same on a cluster"
PORT = "8642"  # in the README
MARK = "-- what the next command prints --"


def story() -> list[tuple[str, str]]:
    """Commands, each with what it prints; ``...`` stands for anything."""
    section = (ROOT / "README.md").read_text().partition(HEADING)[2].partition("\n## ")[0]
    block = re.search(r"```console\n(.*?)```", section, re.DOTALL)
    assert block, "the README has no such story"
    parts = re.split(r"^\$ ", block[1], flags=re.MULTILINE)[1:]
    return [
        (command, printed.strip()) for command, _, printed in (p.partition("\n") for p in parts)
    ]


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def played(commands: list[str], home: Path, port: str) -> list[str]:
    """What each of them prints, one after the other in one shell."""
    lines = ["set -m"]
    for command in commands:
        lines += [f"echo '{MARK}'", command.replace(PORT, port)]
        if command.endswith("&"):
            ready = f"curl -s -o {home}/readyz -f http://127.0.0.1:{port}/readyz"
            lines += ["SERVER=$!", f"until {ready}; do sleep 0.1; done"]
    lines += ["kill $SERVER", "wait $SERVER"]
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache")),
        "MODEL_TRAINING_PORT": port,
    }
    script = "\n".join(lines).replace("job.json", f"{home}/job.json")
    done = subprocess.run(
        ["bash", "-c", script], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True,
        timeout=110, check=False,
    )  # fmt: skip
    return [part.strip().replace(port, PORT) for part in done.stdout.split(MARK)[1:]]


@pytest.mark.usefixtures("cluster")
def test_the_story_is_as_told(tmp_path: Path) -> None:
    told = story()
    assert Cluster().kubeconfig.exists()
    printed = played([command for command, _ in told], tmp_path, free_port())
    assert len(printed) == len(told)
    for (command, wanted), got in zip(told, printed, strict=True):
        pattern = ".*".join(map(re.escape, wanted.split("...")))
        assert re.fullmatch(pattern, got, re.DOTALL), f"{command}\nprints {got!r}"
