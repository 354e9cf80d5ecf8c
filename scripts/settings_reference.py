"""Write docs/reference/settings.md: defaults and ranges from the code, meanings from the shipped file.

Without arguments, write it; with `--check`, say whether it is current (exit status 1 when not).
"""

import inspect
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import Field
from pathlib import Path
from typing import Any

from mxweir.config.schema import REQUIRED, declared
from mxweir.config.sections import Config
from mxweir.facts import CONTENT_KEYS, KEYS

TOP = Path(__file__).resolve().parents[1]
SHIPPED = TOP / "conf" / "mxweir.toml"
PAGE = TOP / "docs" / "reference" / "settings.md"

Key = tuple[str, str]
"""A table's name as it is written, and a key of it; "" stands for the table itself."""

_HEADER = re.compile(r"#?\[\[?([\w.]+)\]\]?$")
_KEY = re.compile(r"#?(\w+) = ")
_ITEM = re.compile(r"  (\w+) +(.+)")
_KINDS = {
    "address": "address",
    "loopback": 'address on the loopback, or `""`',
    "text": "text",
    "name": "name",
    "boolean": "`true` or `false`",
    "number": "number",
    "threshold": 'number, or `"never"`',
    "reply_text": "text of ASCII, at most 200 characters",
    "mail_domain": "domain",
    "factor": "number, 0.01 to 100",
    "redis_url": "URL",
    "key_prefix": "up to 32 letters, digits, `.`, `_` and `-`",
    "share": "share",
    "rate": "rate",
    "file_mode": "mode in octal",
    "path": "absolute path",
    "network": "network",
    "relation": 'name of a view, or `""`',
    "moment": "date and time",
    "delimiter": "text",
    "_overrides": "table of rates",
}
_INTRODUCTION = """\
# Settings

One file, `/etc/mxweir/mxweir.toml`; `--config FILE` or the variable `MXWEIR_CONFIG` name another. Every key
that is not marked *required* has a default, so an empty file is a valid one. `mxweir config check` reports
every mistake at once; `mxweir config show` prints the values in force.

| kind     | written as |
|----------|------------|
| address  | `inet:127.0.0.1:10040`, `inet:[::1]:10040`, `unix:/run/mxweir/policy` |
| duration | `250ms`, `8s`, `10m`, `1h`, `7d` |
| size     | `512KiB`, `20MB`, `1GiB` |
| share    | `20%` |
| rate     | `100/second`, `600/minute`, `3/10 minutes`, `50/hour`, `500/day`; for bytes `20MB/hour` |
| key      | KEYS; of a limit also CONTENT |

This page is made by `scripts/settings_reference.py`: defaults and ranges from the code, meanings from
`conf/mxweir.toml`, the file that ships.
"""


def meanings(text: str) -> dict[Key, str]:
    """What the shipped file says about each key: the comment above it, or its line in the list of a table."""
    found: dict[Key, str] = {}
    table, paragraphs = "", [""]
    for line in text.splitlines():
        if line == "#" or line.startswith("# "):
            paragraphs[-1] += line[1:].removeprefix(" ") + "\n"
        elif header := _HEADER.fullmatch(line):
            # Of several paragraphs the first is about the table; the others lead up to its first example.
            table = header[1]
            _keep(found, table, next(filter(None, paragraphs), "").split("\n\n")[0])
            paragraphs = [""]
        elif key := _KEY.match(line):
            # The second of a pair shares the comment above the first one.
            found.setdefault((table, key[1]), paragraphs[-1] or f"See `{_last_key(found, table)}`.")
            paragraphs = [""]
        else:
            paragraphs.append("")
    return found


def _last_key(found: dict[Key, str], table: str) -> str:
    return next(key for name, key in reversed(found) if name == table)


def _keep(found: dict[Key, str], table: str, comment: str) -> None:
    """A table's own comment, which may hold a list of its keys."""
    if (table, "") in found:
        return  # one more example
    found[table, ""], item = "", ""
    keys = declared(tables()[table])
    for line in comment.splitlines():
        match = _ITEM.fullmatch(line)
        if match and match[1] in keys:
            item = match[1]
            found[table, item] = match[2][0].upper() + match[2][1:] + "\n"
        elif item and line.startswith("  "):
            found[table, item] += line.strip() + "\n"
        else:
            item = ""
            found[table, ""] += line + "\n"


def tables(kind: type[Any] = Config, name: str = "") -> dict[str, type[Any]]:
    """Every table by the name that its header has, the file's top level as ""."""
    found = {name: kind}
    for key, field in declared(kind).items():
        if inner := field.metadata.get("table") or field.metadata.get("tables"):
            found |= tables(inner, f"{name}.{key}" if name else key)
    return found


def takes(read: Any) -> str:
    """What a reader accepts, in words."""
    name, *inner = read.__qualname__.split(".<locals>.")
    held = inspect.getclosurevars(read).nonlocals if inner else {}
    if name in ("duration", "size"):
        return f"{name}, `{held['least']}` to `{held['most']}`"
    if name == "integer":
        return f"whole number, {held['least']} to {held['most']}"
    if name == "one_of" and set(KEYS) <= set(held["words"]):
        return "key" if "" not in held["words"] else 'key, or `""`'
    if name == "one_of":
        return ", ".join(f'`"{word}"`' for word in held["words"])
    if name == "listed":
        return f"list: {takes(held['read'])}"
    if name == "one_or_more":
        return f"{takes(held['read'])}; or a list"
    return _KINDS[name]


def default(field: "Field[Any]") -> str:
    """A key's default as an operator would write it."""
    written = field.metadata["written"]
    if written is REQUIRED:
        return "*required*"
    if written is None:
        return "absent"
    return "`{ }`" if written == {} else f"`{json.dumps(written)}`"


def page() -> str:
    """The whole page."""
    introduction = _INTRODUCTION.replace("KEYS", _listed(KEYS)).replace("CONTENT", _listed(CONTENT_KEYS))
    return "\n".join([introduction, *_sections(meanings(SHIPPED.read_text(encoding="utf-8")))])


def _listed(keys: Sequence[str]) -> str:
    return ", ".join(f"`{key}`" for key in keys)


def _sections(said: dict[Key, str]) -> Iterator[str]:
    for name, kind in tables().items():
        many = name in ("milter.engine", "access", "limit")
        yield f"## {'[[' if many else '['}{name}{']]' if many else ']'}\n" if name else "## Top level\n"
        if about := said.get((name, ""), "").strip():
            yield f"{_prose(about)}\n"
        for key, field in declared(kind).items():
            if "written" in field.metadata:
                yield f"### {name}.{key}\n" if name else f"### {key}\n"
                yield f"Default {default(field)}. Takes {takes(field.metadata['read'])}.\n"
                yield f"{_prose(said[name, key])}\n"


def _prose(comment: str) -> str:
    """A comment as Markdown: its lists as lists, its quantities untouched."""
    text = re.sub(r"^ {2}(\w+) {2,}", r"- `\1`: ", comment.strip("\n"), flags=re.MULTILINE)
    text = re.sub(r"(?<!\n)\n- ", "\n\n- ", text, count=1)
    text = re.sub(r"(\n- .*(?:\n {2,}.*)*)\n(?=[^- \n])", r"\1\n\n", text)
    return re.sub(r"([<>|*])", r"\\\1", text)


def main(arguments: list[str]) -> int:
    """Write the page, or compare it."""
    written = page()
    if "--check" not in arguments:
        PAGE.write_text(written, encoding="utf-8")
        return 0
    if PAGE.read_text(encoding="utf-8") == written:
        return 0
    print("docs/reference/settings.md is not current; run: .venv/bin/python scripts/settings_reference.py")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
