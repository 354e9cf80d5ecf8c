"""One of Postfix's lmdb tables: read here, changed by Postfix's own tool.

Postfix locks the file in its own way (fcntl), which LMDB knows nothing of, so
postmap(1) does all writing. Found by experiment with 3.7:

- `postmap -i` and `-d` change the file in place, a transaction for each row, and
  running smtpd processes see it at once. A row takes 0.1 to 0.3 ms.
- `postmap` without them replaces the content in one transaction, also seen at
  once: a million rows take 1.4 s, for which lookups wait. Killed amidst it, the
  former content stays.
- A file renamed into place is not noticed until `postfix reload`. So only a table
  that was not there before comes that way: whole, or not at all.
- The map's size bounds the table, and is doubled by starting over: unset
  (16 MiB), ten million rows are written seven times.
"""

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import lmdb

_MAP_SIZE = 16 * 2**30
"""Address space, not memory or disk."""

_BATCH_SECONDS = 300.0
_REBUILD_SECONDS = 3600.0
"""Until postmap is given up; a disk under load takes its time."""

_PATH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"

Row = tuple[str, str]
"""Key and value."""


class PostfixMapError(Exception):
    """A table could not be read or changed; one line says which, why, and what would help."""


class Content:
    """What a table holds, for as long as it is locked against changes."""

    def __init__(self, read: "lmdb.Transaction[bytes]") -> None:
        self._read = read

    def get(self, key: str) -> str | None:
        """The value of a key."""
        raw = self._read.get(_stored(key))
        return None if raw is None else _text(raw)

    def count(self) -> int:
        """Rows in the table."""
        return int(self._read.stat()["entries"])

    def keys(self, after: str, most: int) -> list[str]:
        """The next keys behind this one, in the table's order."""
        cursor = self._read.cursor()
        there = cursor.set_range(_stored(after)) if after else cursor.first()
        if there and after and cursor.key() == _stored(after):
            there = cursor.next()
        found: list[str] = []
        while there and len(found) < most:
            found.append(_text(cursor.key()))
            there = cursor.next()
        return found


class PostfixMap:
    """The table `lmdb:DIRECTORY/NAME`, as main.cf writes it."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory
        self.name = name
        self.path = directory / f"{name}.lmdb"
        self._said = ""

    @property
    def there(self) -> bool:
        """Whether there is such a table."""
        return self.path.exists()

    @contextlib.contextmanager
    def reading(self) -> Iterator[Content]:
        """The table's content; meanwhile postmap waits, and Postfix does not. Raises PostfixMapError."""
        try:
            with self.path.open("rb") as file:
                fcntl.lockf(file, fcntl.LOCK_SH)  # as Postfix does it
                with (
                    contextlib.closing(
                        lmdb.open(str(self.path), subdir=False, readonly=True, lock=False, map_size=_MAP_SIZE)
                    ) as environment,
                    environment.begin() as read,
                ):
                    yield Content(read)
        except (OSError, lmdb.Error) as error:
            raise PostfixMapError(f"{self.path}: cannot be read: {error}") from None

    def put(self, rows: list[Row]) -> None:
        """Add these rows or change their values, in place. Raises PostfixMapError."""
        if rows:
            self._postmap(["-i", "-r"], (f"{key} {value}\n" for key, value in rows))
            self._check(rows)

    def delete(self, keys: list[str]) -> None:
        """Take these keys out, in place. Raises PostfixMapError."""
        if keys:
            self._postmap(["-d", "-"], (f"{key}\n" for key in keys))
            self._check((key, None) for key in keys)

    def rebuild(self, rows: Iterable[Row]) -> None:
        """Let the table be exactly these rows, all at once; makes it if need be. Raises PostfixMapError."""
        try:
            with tempfile.TemporaryDirectory(prefix=".new-", dir=self.directory) as scratch:
                new = PostfixMap(Path(scratch), self.name)
                with (Path(scratch) / self.name).open("w") as source:
                    source.writelines(f"{key} {value}\n" for key, value in rows)
                before = self.there
                if before:
                    os.link(self.path, new.path)  # another name of the same file: postmap changes that one
                new._run([], None, _REBUILD_SECONDS)
                if not before:
                    new.path.rename(self.path)
        except OSError as error:
            raise PostfixMapError(f"{self.path}: cannot be made: {error.strerror}") from None

    def _postmap(self, options: list[str], lines: Iterable[str]) -> None:
        # A file, not a pipe: if we die amidst it, postmap still reads whole lines to the end.
        try:
            with tempfile.TemporaryFile("w+", dir=self.directory) as source:
                source.writelines(lines)
                source.seek(0)
                self._run(options, source, _BATCH_SECONDS)
        except OSError as error:
            raise PostfixMapError(f"{self.path}: cannot be changed: {error.strerror}") from None

    def _run(self, options: list[str], source: IO[str] | None, seconds: float) -> None:
        program = shutil.which("postmap", path=_PATH)
        if program is None:
            raise PostfixMapError("postmap is not installed (Debian's package postfix has it)")
        with tempfile.TemporaryDirectory(prefix=".postmap-", dir=self.directory) as own:
            # A main.cf of our own: no mistake in the site's keeps its tables from being kept. It is old: one
            # that may still be written Postfix reads again and again for 2 s.
            settings = Path(own) / "main.cf"
            settings.write_text(f"compatibility_level = 2\nlmdb_map_size = {_MAP_SIZE}\n")
            os.utime(settings, (0, 0))
            command = [program, "-c", own, *options, f"lmdb:{self.directory / self.name}"]
            try:
                done = subprocess.run(  # noqa: S603 - our own arguments
                    command,
                    stdin=source or subprocess.DEVNULL,
                    capture_output=True,
                    timeout=seconds,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                raise PostfixMapError(f"{self.path}: postmap took more than {seconds:.0f} s") from None
        self._said = done.stderr.decode(errors="backslashreplace").strip()
        # -d says 1 too when a key was not there; what came of it all is looked at afterwards.
        if done.returncode and "-d" not in options:
            raise PostfixMapError(self._failure())

    def _check(self, rows: Iterable[tuple[str, str | None]]) -> None:
        with self.reading() as content:
            wrong = next((key for key, value in rows if content.get(key) != value), None)
        if wrong is not None:
            raise PostfixMapError(f"{self._failure()}; {wrong} is not as it should be")

    def _failure(self) -> str:
        said = (self._said.splitlines()[-1:] or ["no reason given"])[0].removeprefix("postmap: ")
        hint = "; install Debian's package postfix-lmdb" if "unsupported dictionary" in said else ""
        return f"{self.path}: postmap failed: {said}{hint}"


def _stored(text: str) -> bytes:
    return text.encode() + b"\0"


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode(errors="backslashreplace")
