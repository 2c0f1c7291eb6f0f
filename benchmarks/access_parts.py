"""What authentication and decision take by themselves, beside ``access_requests.py``.

Each run is a process of its own, which ``access_alone.py`` is.
"""

import json
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from access_site import access_file, asking, deciding, issuing
from load import ROOT, Row, figures


def parts(runs: int) -> list[Row]:
    with ExitStack() as stack:
        issuer = stack.enter_context(issuing())
        point = stack.enter_context(deciding())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mt-bench-")))
        for name in ("roles", "authzen"):
            (folder / name).mkdir()
        tokens = {
            name: issuer.token("user-7", name, ("data-science",)) for name in ("ES256", "RS256")
        }
        given = {
            "tokens": tokens,
            "roles": str(access_file(folder / "roles", issuer)),
            "authzen": str(access_file(folder / "authzen", issuer, *asking(point.url))),
            "point": point.url,
        }
        found = []
        for _ in range(runs):
            done = subprocess.run(
                [sys.executable, str(ROOT / "benchmarks/access_alone.py")],
                input=json.dumps(given).encode(),
                stdout=subprocess.PIPE,
                check=True,
            )
            us = json.loads(done.stdout)
            for name, token in tokens.items():
                us[name] -= issuer.signature_us(token)
            us["ratio"] = us["AuthZEN"] / us["bare"]
            found.append(us)

    def row(what: str, unit: str, target: str, name: str) -> Row:
        return figures(what, unit, target, [each[name] for each in found])

    return [
        row("ES256 token to principal, its signature aside, alone", "us", "under 300", "ES256"),
        row("RS256 token to principal, its signature aside, alone", "us", "under 300", "RS256"),
        row("decision by roles with its audit line, alone", "us", "under 100", "roles"),
        row("decision by AuthZEN with its audit line, alone", "us", "-", "AuthZEN"),
        row("the bare round trip beside it", "us", "-", "bare"),
        row("the one in the other", "times", "under 1.5", "ratio"),
    ]
