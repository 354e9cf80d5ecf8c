"""The domains file: a domain a line, an optional next hop behind it, `#` begins a comment.

example.org
.example.com            # and everything below example.com
example.net  smtp:[192.0.2.25]
"""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from mxweir.domains.names import parse_line
from mxweir.domains.record import Record

_LONGEST_LINE = 16 * 1024


class BadLine(NamedTuple):
    """A line that is no domain."""

    number: int
    what: str


class DomainList(NamedTuple):
    """What a file holds: its good lines, and its bad ones with their numbers."""

    records: dict[str, Record]
    bad: list[BadLine]


def read_domains(path: Path, origin: int) -> DomainList:
    """Read a domains file; raises OSError. A domain that stands twice counts as it stood last.

    But for its subdomains: with both `.example.org` and `example.org`, as in Postfix's tables, all are ours.
    """
    records: dict[str, Record] = {}
    bad: list[BadLine] = []
    with path.open("rb") as file:
        for found in parse_domains(file, origin):
            if isinstance(found, BadLine):
                bad.append(found)
                continue
            former = records.get(found.domain)
            both = former is not None and former.include_subdomains
            records[found.domain] = found._replace(include_subdomains=True) if both else found
    return DomainList(records, bad)


def parse_domains(file: BinaryIO, origin: int) -> Iterator[Record | BadLine]:
    """What each line of a domains file says, one after the other, however many there are; raises OSError."""
    number = 0
    while raw := file.readline(_LONGEST_LINE):
        number += 1
        if len(raw) == _LONGEST_LINE and not raw.endswith(b"\n"):
            yield BadLine(number, "longer than 16 KiB")
            while raw and not raw.endswith(b"\n"):
                raw = file.readline(_LONGEST_LINE)
            continue
        try:
            record = parse_line(raw.decode().removeprefix("\ufeff"), origin)
        except UnicodeDecodeError:
            yield BadLine(number, "not valid UTF-8")
        except ValueError as error:
            yield BadLine(number, str(error))
        else:
            if record is not None:
                yield record
