"""The figures of access, from outside: ``scripts/bench --access [--only PART] [--runs N]``.

Every row is one promise with its mark beside it; a row with ``-`` is there to explain another.
Servers run with their default settings. What is compared is measured by turns in the same run.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from access_lists import million, one_question
from access_parts import parts
from access_remote import remote
from access_requests import requests
from access_starts import starts
from access_timing import timing
from load import ROOT, Row, machine, table

PARTS: dict[str, Callable[[int], list[Row]]] = {
    "start": starts,
    "request": requests,
    "remote": remote,
    "alone": parts,
    "list": one_question,
    "million": million,
    "hidden": timing,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench --access", description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", action="append", choices=sorted(PARTS), help="may be repeated")
    parser.add_argument("--json", type=Path, default=ROOT / ".bench" / "access.json")
    given = parser.parse_args()
    asked = {name: version(name) for name in ("pyjwt", "cryptography", "aiohttp")}
    told = {**machine(), **asked, "load_before": os.getloadavg()[0]}
    rows: list[Row] = []
    given.json.parent.mkdir(exist_ok=True)
    for name, part in PARTS.items():
        if not given.only or name in given.only:
            found = part(given.runs)
            print(table(found), file=sys.stderr)
            rows += found  # kept at once: a part that fails takes nothing of the others with it
            given.json.write_text(json.dumps({"machine": told, "rows": rows}, indent=2) + "\n")
    print(table(rows))
    print("\n" + json.dumps(told))


if __name__ == "__main__":
    main()
