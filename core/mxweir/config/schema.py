"""Walk a TOML document by the declared sections and collect every mistake.

A section is a frozen dataclass whose fields are made by `setting` (one value),
`section` (a table) or `sections` (an array of tables). Nothing here knows a
single key of mxweir.
"""

import dataclasses
import difflib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, TypeVar, cast

from mxweir.config.readers import Reader

T = TypeVar("T")
S = TypeVar("S")

_HEADER = re.compile(r"\s*\[\[?\s*([\w.\- ]+?)\s*\]\]?\s*(?:#.*)?$")
_PART = re.compile(r"""\s*("[^"]*"|'[^']*'|[\w-]+)\s*([=.])""")

_LISTED = 100
"""Problems that are told one by one; nobody mends more before the next try, and a log need not hold them."""

REQUIRED: Any = object()
"""Stands for the default of a key that must be written."""

MASK = "(secret)"
"""Stands for the value of a secret key wherever it would be shown."""

Place = tuple[str | int, ...]
"""A key's place in the document: ("policyd", "deadline"), ("limit", 0, "rate")."""

_Names = tuple[str, ...]
_Row = tuple[_Names, int]
"""An array of tables, and which of its tables, counted from 1; ((), 0) is the whole document."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: where it stands and what would be right."""

    place: Place
    what: str
    line: int | None = None

    def __str__(self) -> str:
        text = f"{show(self.place)}: {self.what}" if self.place else self.what
        # A key in quotes may hold a line end, and this text is one line.
        return "".join([sign if sign.isprintable() else repr(sign)[1:-1] for sign in text])


class ConfigError(Exception):
    """A configuration that cannot be used, with all its problems."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = tuple(problems)
        super().__init__("\n".join(self.lines()))

    def lines(self) -> list[str]:
        """One line a problem, `FILE:LINE: table.key: what is wrong`; of very many only the first."""
        listed = self.problems[:_LISTED]
        lines = [f"{self.source}:{p.line}: {p}" if p.line else f"{self.source}: {p}" for p in listed]
        more = len(self.problems) - len(listed)
        return [*lines, f"{self.source}: and {more} more"] if more else lines


def setting(read: Reader[T], default: object, *, secret: bool = False) -> T:
    """Declare one key: how it is read, and its default as an operator would write it (None: absent)."""
    metadata = {"read": read, "written": default, "secret": secret}
    # A secret does not get into a log by way of the repr of the table that it stands in.
    if default is REQUIRED:
        return cast(T, dataclasses.field(metadata=metadata, repr=not secret))
    if isinstance(default, dict):
        return cast(T, dataclasses.field(default_factory=dict, metadata=metadata))
    value = None if default is None else read(default)
    return cast(T, dataclasses.field(default=value, metadata=metadata, repr=not secret))


def section(kind: type[S]) -> S:
    """Declare a table, `[name]`."""
    return dataclasses.field(default_factory=kind, metadata={"table": kind})


def optional_section(kind: type[S]) -> S | None:
    """Declare a table that may be absent."""
    return cast("S | None", dataclasses.field(default=None, metadata={"table": kind}))


def sections(kind: type[S]) -> tuple[S, ...]:
    """Declare an array of tables, `[[name]]`."""
    return cast("tuple[S, ...]", dataclasses.field(default=(), metadata={"tables": kind}))


def declared(kind: type[Any]) -> "dict[str, dataclasses.Field[Any]]":
    """The keys of a table, as they are declared."""
    return {field.name: field for field in dataclasses.fields(kind) if field.metadata.get("derived") is None}


def read_table(
    kind: type[S], document: Mapping[str, object], problems: list[Problem], place: Place = ()
) -> S | None:
    """Read a table as `kind`, appending every mistake to `problems`.

    A wrong value counts as its default from there on, so that whatever else is
    wrong is found as well; None if a required key is missing or wrong. In an
    array of tables such a None keeps its place, so that the others keep theirs.
    """
    fields = declared(kind)
    problems += [Problem((*place, key), _unknown(key, fields)) for key in document if key not in fields]
    values: dict[str, object] = {}
    whole = True
    for key, field in fields.items():
        required = field.metadata.get("written") is REQUIRED
        before = len(problems)
        if key in document:
            value = _read(field, document[key], problems, (*place, key))
            nested = field.metadata.get("table") or field.metadata.get("tables")
            if len(problems) == before or (nested and value is not None):
                values[key] = value
        elif required:
            problems.append(Problem((*place, key), "this key is missing"))
        whole = whole and (not required or key in values)
    return kind(**values) if whole else None


def _read(field: "dataclasses.Field[Any]", value: object, problems: list[Problem], place: Place) -> object:
    if kind := field.metadata.get("table"):
        if isinstance(value, dict):
            return read_table(kind, value, problems, place)
        problems.append(Problem(place, f"this is a table: write it as [{show(place)}]"))
    elif kind := field.metadata.get("tables"):
        if isinstance(value, list) and all(isinstance(row, dict) for row in value):
            return tuple(read_table(kind, row, problems, (*place, i)) for i, row in enumerate(value))
        problems.append(Problem(place, f"this is an array of tables: write each as [[{show(place)}]]"))
        return ()
    else:
        try:
            return cast(object, field.metadata["read"](value))
        except ValueError as error:
            what = str(error).replace(repr(value), MASK) if field.metadata["secret"] else str(error)
            problems.append(Problem(place, what))
    return None


def _unknown(key: str, known: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    hint = f'did you mean "{near[0]}"?' if near else f"known here: {', '.join(known)}"
    return f"unknown key; {hint}"


def show(place: Place) -> str:
    """`("limit", 0, "rate")` → `limit[1].rate`, counted as people count."""
    text = ""
    for part in place:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if text else part
    return text


class Lines:
    """Where each key and table of a document is written; read once, however many are looked up."""

    def __init__(self, source: str) -> None:
        self._first: dict[tuple[_Row, _Names], int] = {}
        table: _Names = ()
        seen = Counter[_Names]()
        rows: list[_Row] = [((), 0)]
        for number, line in enumerate(source.splitlines(), 1):
            if header := _HEADER.match(line):
                table = tuple(part.strip() for part in header[1].split("."))
                seen[table] += 1
                above = [table[:length] for length in range(1, len(table) + 1)]
                rows = [((), 0), *((names, seen[names]) for names in above)]
                written = [table]
            else:
                names = _names(line)
                written = [(*table, *names[:length]) for length in range(1, len(names) + 1)]
            for place in product(rows, written):
                self._first.setdefault(place, number)

    def of(self, place: Place) -> int | None:
        """The line on which a key, or else its table, is written; None if it cannot be told."""
        names = tuple(part for part in place if isinstance(part, str))
        row: _Row = ((), 0)
        for i, part in enumerate(place):
            if isinstance(part, int):
                row = tuple(name for name in place[:i] if isinstance(name, str)), part + 1
        return self._first.get((row, names)) or self._first.get((row, names[:-1]))


def _names(line: str) -> list[str]:
    """The parts of the key, dotted or not, to which the line gives a value."""
    names: list[str] = []
    end = 0
    while part := _PART.match(line, end):
        names.append(part[1][1:-1] if part[1][0] in "\"'" else part[1])
        end = part.end()
        if part[2] == "=":
            break
    return names
