"""The OpenAPI document as a page: HTML without script, font or request to anywhere.

Whoever fetches it has a token, which a browser's navigation does not send, so it must also read
well as a saved file.
"""

import json
from collections.abc import Iterator
from html import escape
from typing import Any, Final, TypeAlias

from model_training.jobs import JSONObject

_STYLE: Final = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #1a1a1a; background: #fff; }
h2 { margin-top: 2.5rem; border-top: 1px solid #ccc; padding-top: 1rem; }
code, pre { font-family: ui-monospace, monospace; font-size: 0.9em; }
pre { background: #f4f4f4; padding: 0.75rem; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: 0.25rem 0.75rem 0.25rem 0; }
@media (prefers-color-scheme: dark) {
  body { color: #e6e6e6; background: #161616; } pre { background: #262626; } a { color: #8ab4f8; }
}
"""
Plain: TypeAlias = Any  # the document is ours: its shape is known here without being checked again
_METHODS: Final = ("get", "post", "delete")


def render_page(document: JSONObject) -> str:
    """The whole page."""
    return "\n".join(_page(document))


def _page(document: Plain) -> Iterator[str]:
    info = document["info"]
    operations = [
        (method, path, item[method])
        for path, item in document["paths"].items()
        for method in _METHODS
        if method in item
    ]
    yield "<!doctype html>"
    yield '<html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{escape(info['title'])}</title><style>{_STYLE}</style></head><body>"
    yield f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>"
    yield f"<p>{escape(info['summary'])} Every GET also answers HEAD.</p>"
    yield "<nav><ul>"
    for method, path, operation in operations:
        anchor = escape(operation["operationId"])
        yield f'<li><a href="#{anchor}"><code>{method.upper()} {escape(path)}</code></a></li>'
    yield "</ul></nav>"
    for method, path, operation in operations:
        yield from _operation(method, path, operation)
    yield "<h2>Schemas</h2>"
    for name, schema in document["components"]["schemas"].items():
        yield f"<h3>{escape(name)}</h3>{_json(schema)}"
    yield "</body></html>"


def _operation(method: str, path: str, operation: Plain) -> Iterator[str]:
    yield f'<h2 id="{escape(operation["operationId"])}">{escape(operation["summary"])}</h2>'
    yield f"<p><code>{method.upper()} {escape(path)}</code></p>"
    yield f"<p>{escape(operation['description'])}</p>"
    if operation["parameters"]:
        yield from _table(
            ("Parameter", "In", "Meaning"),
            (
                (f"<code>{escape(p['name'])}</code>", p["in"], escape(p["description"]))
                for p in operation["parameters"]
            ),
        )
    if "requestBody" in operation:
        content = operation["requestBody"]["content"]["application/json"]
        yield f"<p>Body: a JSON object, such as</p>{_json(content['example'])}"
    yield from _table(
        ("Status", "Meaning"),
        (
            (f"<code>{status}</code>", escape(answer["description"]))
            for status, answer in operation["responses"].items()
        ),
    )


def _table(heads: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    yield "<table><tr>" + "".join(f"<th>{head}</th>" for head in heads) + "</tr>"
    for row in rows:
        yield "<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>"
    yield "</table>"


def _json(value: object) -> str:
    return f"<pre>{escape(json.dumps(value, indent=2, ensure_ascii=False))}</pre>"
