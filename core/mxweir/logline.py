"""One record → one line of text. Pure.

Whatever the values hold, a line stays one line and a field stays in its field:
what is not printable is escaped, and what has a space, a quote or an equals
sign is quoted.
"""

import json
import re
from collections.abc import Mapping

_LONGEST = 1000
_PLAIN = re.compile(r"[A-Za-z0-9_@.:/<>\[\](),;+*#%&!?~^-]*")


def logfmt(fields: Mapping[str, object]) -> str:
    """`name=value` with quotes where a value needs them."""
    line = " ".join([f"{name}={value}" for name, value in fields.items()])
    # Nearly every line is plain, and then a few counts over the whole of it say so: no value brought a space,
    # an equals sign, a quote or anything unprintable.
    fields_in_it = len(fields)
    if (
        line.count("=") == fields_in_it
        and line.count(" ") == fields_in_it - 1
        and line.isprintable()
        and '"' not in line
        and "\\" not in line
        and len(line) <= _LONGEST
    ):
        return line
    return " ".join([f"{name}={_quoted(value)}" for name, value in fields.items()])


def jsonline(fields: Mapping[str, object]) -> str:
    """A JSON object, in ASCII."""
    return json.dumps({name: printable(value) for name, value in fields.items()}, default=str)


def printable(value: object) -> object:
    """A text without anything that could end a line, move a cursor or turn its direction; cut if too long."""
    if not isinstance(value, str):
        return value
    if not value.isprintable():
        value = "".join([c if c.isprintable() else c.encode("unicode_escape").decode() for c in value])
    return value if len(value) <= _LONGEST else value[:_LONGEST] + "…"


def _quoted(value: object) -> str:
    text = str(printable(json.dumps(value) if isinstance(value, list | dict) else value))
    if _PLAIN.fullmatch(text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
