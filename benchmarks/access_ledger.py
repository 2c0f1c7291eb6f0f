"""Ledgers for the figures of access: ``access_ledger.py FILE million|twenty``.

Of a million jobs of 50 pipelines and 200 owners, or of 10,000 jobs of 20 pipelines and one owner.
The owners are users of the issuer ``corp``, so that who asks can be one of them.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from ledger import fill, rows

from model_training.ledger.rows import Value


def million() -> Iterator[dict[str, Value]]:
    for row in rows(1_000_000):
        yield {**row, "owner": f"corp/{row['owner']}"}


def twenty() -> Iterator[dict[str, Value]]:
    for number, row in enumerate(rows(10_000)):
        yield {**row, "owner": "corp/lea", "pipeline": f"pipeline-{number % 20:02}"}


LEDGERS = {"million": million, "twenty": twenty}

if __name__ == "__main__":
    fill(Path(sys.argv[1]), LEDGERS[sys.argv[2]]())
