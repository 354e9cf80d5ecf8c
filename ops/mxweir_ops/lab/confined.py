"""A service manager that holds its daemon to the filters of a unit, as systemd does, without systemd.

Of what a unit forbids, these lines are the ones that nobody sees until the daemon
runs under systemd: SystemCallFilter, RestrictAddressFamilies and
MemoryDenyWriteExecute. systemd makes seccomp(2) filters of them by libseccomp,
which comes with it; so does this, before it becomes the daemon, and its children
inherit them. What a name like @system-service holds, systemd's own program says.
"""

import ctypes
import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from ctypes import POINTER, Structure, c_int, c_uint, c_uint32, c_uint64, c_void_p
from pathlib import Path

from mxweir_ops.lab.manager import Manager
from mxweir_ops.lab.process import MissingError, program

# <seccomp.h>
_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_EQ, _GT, _MASKED_EQ = 4, 6, 7

_FAMILIES = 64
"""Above all that Linux has (AF_MAX)."""

_WRITE, _EXEC = 2, 4
"""PROT_WRITE, PROT_EXEC of mmap(2)."""


class Confined(Manager):
    """Sockets by their FileDescriptorName, and the filters of the unit file."""

    def __init__(self, unit: Path) -> None:
        super().__init__()
        self._unit = unit

    def argv(self, argv: Iterable[str]) -> list[str]:
        """The command line that is handed the sockets, and the filters. Raises MissingError."""
        program("systemd-analyze", "systemd")
        return super().argv([sys.executable, "-P", "-m", __name__, str(self._unit), *argv])


class _Compare(Structure):
    """An argument of a system call, by its number, and what it is compared with."""

    _fields_ = (("arg", c_uint), ("op", c_int), ("a", c_uint64), ("b", c_uint64))


class _Filter:
    """What becomes of each system call, `otherwise` if no rule matches."""

    def __init__(self, otherwise: int) -> None:
        try:
            library = ctypes.CDLL("libseccomp.so.2")
        except OSError:
            raise MissingError("libseccomp is not installed (Debian's package libseccomp2 has it)") from None
        library.seccomp_init.restype = c_void_p
        library.seccomp_init.argtypes = (c_uint32,)
        library.seccomp_load.argtypes = (c_void_p,)
        library.seccomp_rule_add_array.argtypes = (c_void_p, c_uint32, c_int, c_uint, POINTER(_Compare))
        self._library = library
        self._rules = library.seccomp_init(otherwise)

    def rule(self, action: int, call: str, *compares: _Compare) -> None:
        """What is done with a system call whose arguments are all like this, where this machine has it."""
        number = self._library.seccomp_syscall_resolve_name(call.encode())
        if number >= 0:
            array = (_Compare * len(compares))(*compares)
            if self._library.seccomp_rule_add_array(self._rules, action, number, len(compares), array):
                raise RuntimeError(f"seccomp takes no rule for {call}")

    def load(self) -> None:
        """From now on, for this process and all that it starts, which gain no privileges (no_new_privs)."""
        if self._library.seccomp_load(self._rules):
            raise RuntimeError("the kernel takes no seccomp filter")


def confine(unit: Path) -> None:
    """Hold this process and what it starts to the unit's filters."""
    _restrict_families(_words(unit, "RestrictAddressFamilies"))
    if _words(unit, "MemoryDenyWriteExecute") == ["yes"]:
        _deny_write_execute()
    _restrict_calls(_words(unit, "SystemCallFilter"))  # the last one: it forbids to load others


def _words(unit: Path, key: str) -> list[str]:
    """The words of all lines with this key; of a line that takes away, each begins with `~`."""
    found: list[str] = []
    for line in unit.read_text().splitlines():
        if line.startswith(f"{key}="):
            words = line.partition("=")[2]
            sign = "~" if words.startswith("~") else ""
            found += [sign + word for word in words.removeprefix("~").split()]
    return found


def _restrict_families(names: list[str]) -> None:
    allowed = {int(getattr(socket, name)) for name in names}
    families = _Filter(_ALLOW)
    refuse = _ERRNO | errno.EAFNOSUPPORT
    families.rule(refuse, "socket", _Compare(0, _GT, _FAMILIES))
    for family in range(_FAMILIES + 1):
        if family not in allowed:
            families.rule(refuse, "socket", _Compare(0, _EQ, family))
    families.load()


def _deny_write_execute() -> None:
    memory = _Filter(_ALLOW)
    both = _WRITE | _EXEC
    memory.rule(_ERRNO | errno.EPERM, "mmap", _Compare(2, _MASKED_EQ, both, both))
    for call in ("mprotect", "pkey_mprotect"):
        memory.rule(_ERRNO | errno.EPERM, call, _Compare(2, _MASKED_EQ, _EXEC, _EXEC))
    memory.load()


def _restrict_calls(words: list[str]) -> None:
    groups = _groups()
    allowed = set(_calls("@default", groups))  # what every program needs, says systemd.exec(5)
    for word in words:
        change = allowed.difference_update if word.startswith("~") else allowed.update
        change(_calls(word.removeprefix("~"), groups))
    calls = _Filter(_ERRNO | errno.EPERM)
    for call in sorted(allowed):
        calls.rule(_ALLOW, call)
    calls.load()


def _calls(word: str, groups: Mapping[str, list[str]]) -> Iterator[str]:
    """The system calls that a word of SystemCallFilter stands for."""
    if not word.startswith("@"):
        yield word
    for part in groups.get(word, ()):
        yield from _calls(part, groups)


def _groups() -> dict[str, list[str]]:
    """The names of systemd for many system calls, each with calls and other such names."""
    argv = [str(program("systemd-analyze", "systemd")), "syscall-filter"]
    listed = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    groups: dict[str, list[str]] = {}
    group: list[str] = []
    for line in listed.splitlines():
        word = line.strip()
        if line.startswith("@"):
            group = groups[word] = []
        elif line.startswith(" ") and not word.startswith("#"):
            group.append(word)
    return groups


if __name__ == "__main__":
    confine(Path(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - our own arguments
