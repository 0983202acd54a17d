"""The page that shows the HTTP interface to a person. It is whole in itself: it loads nothing from anywhere. Pure."""

from __future__ import annotations

import base64
import hashlib
import json
from html import escape
from typing import Any

Json = dict[str, Any]

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --accent: #0b6b8a; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --accent: #67c7e6; --bad: #f2857d; } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 60rem; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.6rem; margin: 0 0 .3rem; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .6rem; border-top: 1px solid var(--line); padding-top: 1.2rem; }
h3 { font-size: .95rem; margin: 1.2rem 0 .4rem; }
code, pre, textarea { font: .85rem/1.45 ui-monospace, monospace; }
pre, textarea { background: var(--soft); border: 1px solid var(--line); border-radius: .4rem; padding: .7rem; margin: 0;
  width: 100%; overflow-x: auto; white-space: pre; }
textarea { color: inherit; resize: vertical; }
.method { background: var(--accent); color: Canvas; border-radius: .3rem; padding: .1rem .45rem; font-size: .8rem;
  font-weight: 700; margin-right: .5rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); }
button { font: inherit; padding: .3rem 1rem; margin: .6rem .6rem .6rem 0; border-radius: .4rem; cursor: pointer;
  border: 1px solid var(--accent); background: none; color: var(--accent); }
button:hover, button:focus-visible { background: var(--accent); color: Canvas; }
.bad { color: var(--bad); }
"""

_SCRIPT = """
for (const form of document.querySelectorAll("form")) {
  const status = form.querySelector("output"), shown = form.querySelector("pre.answer");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const headers = {"Content-Type": "application/json"};
    const began = performance.now();
    try {
      const answer = await fetch(form.dataset.path, {method: "POST", headers, body: form.elements.body.value});
      const text = await answer.text();
      status.textContent = answer.status + " in " + Math.round(performance.now() - began) + " ms";
      status.className = answer.ok ? "" : "bad";
      try { shown.textContent = JSON.stringify(JSON.parse(text), null, 2); } catch { shown.textContent = text; }
    } catch (error) {
      status.textContent = "no answer: " + error.message;
      status.className = "bad";
      shown.textContent = "";
    }
    shown.hidden = !shown.textContent;
  });
}
"""


_CREDENTIALS = "Callers show who they are with `authorization: Bearer …`, `x-api-key` or a client certificate."


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_digest(_STYLE)}'; script-src 'sha256-{_digest(_SCRIPT)}'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The header to send the page with: nothing runs or loads but what is in it."""


def page(document: Json) -> str:
    """The page of an OpenAPI document.

    Args:
        document: made by `openapi.document`.
    """
    schemas = document["components"]["schemas"]
    info = document["info"]
    secured = "securitySchemes" in document["components"]
    parts = [
        f"<h1>{escape(info['title'])}</h1>",
        f'<p>{_prose(info["description"])} Machine-readable: <a href="openapi.json"><code>openapi.json</code></a>.</p>',
    ]
    if secured:
        parts.append(f"<p>{_prose(_CREDENTIALS)}</p>")
    for path, operations in document["paths"].items():
        parts += _operation(path, operations["post"], schemas)
    parts += ["<h2>Fields of an event</h2>", _fields(schemas["Event"]["properties"]["fields"])]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(info['title'])}</title><style>{_STYLE}</style></head>\n"
        f"<body>{''.join(parts)}<script>{_SCRIPT}</script></body></html>\n"
    )


def _operation(path: str, operation: Json, schemas: Json) -> list[str]:
    content = operation["requestBody"]["content"]["application/json"]
    example = json.dumps(content["example"], indent=2)
    answer = schemas[_name(operation["responses"]["200"]["content"]["application/json"]["schema"])]
    request = schemas[_name(content["schema"])]
    errors = [(status, one["description"]) for status, one in operation["responses"].items() if status != "200"]
    options = request["properties"].get("options")
    parts = [
        f'<h2><span class="method">POST</span><code>{escape(path)}</code> {escape(operation["summary"])}</h2>',
        f'<form data-path="{escape(path)}">',
        f'<textarea name="body" spellcheck="false" aria-label="Request body" rows="{example.count(chr(10)) + 1}">',
        f"{escape(example)}</textarea>",
        '<button type="submit">Send</button><output></output><pre class="answer" hidden></pre></form>',
    ]
    if options is not None:
        parts += ["<details><summary>Options</summary>", _members(schemas[_name(options)]), "</details>"]
    parts += [
        "<details><summary>Answer</summary>",
        _members(answer),
        "</details><details><summary>Errors and deadline</summary>",
        _table(("Status", "Meaning"), errors),
        *(
            f"<p><code>{escape(one['name'])}</code>: {_prose(one['description'])}</p>"
            for one in operation["parameters"]
        ),
        "</details>",
    ]
    return parts


def _members(schema: Json) -> str:
    rows = [(name, _type(one), one.get("description", "")) for name, one in schema["properties"].items()]
    return _table(("Name", "Type", "Meaning"), rows)


def _fields(schema: Json) -> str:
    rows = []
    for name, one in schema["properties"].items():
        bounds = " to ".join(str(one[bound]) for bound in ("minimum", "maximum") if bound in one)
        rows.append(
            (name, _type(one), bounds, "yes" if name in schema["required"] else "no", one.get("description", ""))
        )
    return _table(("Name", "Type", "Allowed", "Required", "Meaning"), rows)


def _table(head: tuple[str, ...], rows: list[Any]) -> str:
    body = "".join(
        f"<tr><td><code>{escape(row[0])}</code></td>{''.join(f'<td>{_prose(cell)}</td>' for cell in row[1:])}</tr>"
        for row in rows
    )
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    return f'<div class="scroll"><table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>'


def _type(schema: Json) -> str:
    if "enum" in schema and len(schema["enum"]) < 12:
        return ", ".join(map(str, schema["enum"]))
    if schema.get("type") == "array":
        return f"array: {_type(schema['items'])}"
    if "anyOf" in schema:
        return _type(schema["anyOf"][0])
    kind = schema.get("type", "object")
    text = " or ".join(kind) if isinstance(kind, list) else str(kind)
    return f"{text} ({schema['format']})" if "format" in schema else text


def _name(reference: Json) -> str:
    return str(reference["$ref"]).rpartition("/")[2]


def _prose(text: str) -> str:
    """Escaped, with what stands between backquotes as code."""
    pieces = escape(text).split("`")
    return "".join(f"<code>{one}</code>" if i % 2 else one for i, one in enumerate(pieces))
