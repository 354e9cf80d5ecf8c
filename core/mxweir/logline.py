"""One record → one line of text. Pure.

Whatever the values hold, a line stays one line and a field stays in its field:
what is not printable is escaped, and what has a space, a quote or an equals
sign is quoted.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence

Render = Callable[[Mapping[str, object]], str]

_LONGEST = 1000
_HARMLESS = bytes(code for code in range(0x21, 0x7F) if code not in b'="\\')
_PLAIN = re.compile(r"[A-Za-z0-9_@.:/<>\[\](),;+*#%&!?~^-]*")


def row(names: Sequence[str], render: Render) -> Callable[[tuple[object, ...]], str]:
    """For lines that are written often: a renderer of the values of fields that are known beforehand."""
    pattern = " ".join(f"{name}=%s" for name in names)
    plain = render is logfmt

    def line(values: tuple[object, ...]) -> str:
        if plain and _is_plain(text := pattern % values, len(values)):
            return text
        return render(dict(zip(names, values, strict=True)))

    return line


def logfmt(fields: Mapping[str, object]) -> str:
    """`name=value` with quotes where a value needs them."""
    line = " ".join([f"{name}={value}" for name, value in fields.items()])
    if _is_plain(line, len(fields)):
        return line
    return " ".join([f"{name}={_quoted(value)}" for name, value in fields.items()])


def _is_plain(line: str, fields: int) -> bool:
    """Nearly every line is: no value brought a space, an equals sign, a quote or anything unprintable.

    Then nothing is left of it without its harmless characters but an equals sign
    for each field and the spaces between them.
    """
    left = line.encode("utf-8", "backslashreplace").translate(None, _HARMLESS)
    return left == b"= " * (fields - 1) + b"=" and len(line) <= _LONGEST


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
