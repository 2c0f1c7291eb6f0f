"""The named queries of ``queries.sql``: SQL stays in SQL files, where it can be read at once."""

import re
from pathlib import Path
from typing import Final

_NAME = re.compile(r"^-- (\w+) --$", re.MULTILINE)


def load_queries(path: Path) -> dict[str, str]:
    """Each query by its name, with its comments."""
    parts = _NAME.split(path.read_text(encoding="utf-8"))[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


QUERIES: Final = load_queries(Path(__file__).with_name("queries.sql"))
