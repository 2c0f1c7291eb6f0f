"""The figures of the service on a cluster, from outside: ``scripts/bench --cluster``.

    scripts/bench --cluster [--only PART] [--runs N] [--jobs N] [--pods N] [--json FILE]

What is compared is measured by turns in the same run. Parts without a word of a node run on a
control plane of their own; the others run on the test cluster, which ``testbed/up`` starts.
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from cluster_logs import first_line, many_lines, requests
from cluster_posts import posts
from cluster_rivals import CLIENTS, PREDECESSOR
from cluster_scale import changes, lists, scale
from load import ROOT, Row, machine, table

from testbed.binaries import KUBERNETES

PARTS: dict[str, Callable[[argparse.Namespace], list[Row]]] = {
    "post": lambda given: posts(given.runs),
    "list": lambda given: lists(given.runs),
    "scale": lambda given: scale(given.runs, given.jobs),
    "change": lambda given: changes(given.runs),
    "first-line": lambda given: first_line(given.runs),
    "lines": lambda given: many_lines(given.runs, given.pods),
    "requests": lambda given: requests(given.runs),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench --cluster", description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", action="append", choices=sorted(PARTS), help="may be repeated")
    parser.add_argument("--jobs", type=int, default=50_000, help="that are followed")
    parser.add_argument("--pods", type=int, default=100, help="that print at the same time")
    parser.add_argument("--json", type=Path, default=ROOT / ".bench" / "cluster.json")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what it started ends with it
    told = {**machine(), **versions(), "load_before": os.getloadavg()[0]}
    rows: list[Row] = []
    given.json.parent.mkdir(exist_ok=True)
    for name, part in PARTS.items():
        if not given.only or name in given.only:
            found = part(given)
            print(table(found), file=sys.stderr)
            rows += found  # kept at once: a part that fails takes nothing of the others with it
            given.json.write_text(json.dumps({"machine": told, "rows": rows}, indent=2) + "\n")
    print(table(rows))
    print("\n" + json.dumps(told))


def versions() -> dict[str, object]:
    return {"kubernetes": KUBERNETES, "clients": CLIENTS, "predecessor": PREDECESSOR}


if __name__ == "__main__":
    main()
