"""``testbed/status`` where there is no cluster."""

import json
import os
import subprocess
from pathlib import Path

STATUS = Path(__file__).parents[2] / "testbed/status"


def test_looking_makes_nothing(tmp_path: Path):
    folder = tmp_path / "state"
    environment = {**os.environ, "MODEL_TRAINING_TESTBED_STATE": str(folder)}
    argv = [STATUS, "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 1, done.stderr
    told = json.loads(done.stdout)
    assert not told["ok"]
    assert {each["state"] for each in told["components"].values()} == {"not running"}
    assert not folder.exists()
