"""CPU time, memory, threads and sockets of processes and of the whole machine, from /proc (Linux proc(5))."""

import os
import resource
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_TICK = os.sysconf("SC_CLK_TCK")
_CPU_CLOCK = 2
"""Which of a process's clocks: Linux's CPUCLOCK_SCHED."""

_GROUP, _SESSION, _CPU, _CHILDREN_CPU = 2, 3, slice(11, 13), slice(13, 15)
"""Places in /proc/PID/stat behind the program's name: the fields 5, 6, 14-15 and 16-17 of proc(5)."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Of all processes together, in MiB: now resident, its proportional share, and the highest so far."""

    rss: float
    pss: float
    peak: float


def group(leader: int) -> list[int]:
    """The processes of the process group that `leader` leads."""
    return _members(_GROUP, leader)


def session(member: int) -> list[int]:
    """The processes of the session in which `member` is."""
    return _members(_SESSION, os.getsid(member))


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU time of these processes and of their children that have ended, in seconds.

    A process's own clock counts nanoseconds, with those of threads that have ended;
    /proc/PID/stat has whole ticks, and over the sixty processes of a Postfix the
    cut-off parts would amount to more than what a policy server adds.
    """
    return sum((_running(pid) + sum(map(int, _stat(pid)[_CHILDREN_CPU])) / _TICK for pid in pids), 0.0)


def own_children_seconds() -> float:
    """CPU time of our own children that have ended, in seconds."""
    user, system, *_ = resource.getrusage(resource.RUSAGE_CHILDREN)
    return user + system


def user_share(pids: Iterable[int]) -> float:
    """Which share of their CPU time so far these processes spent outside the kernel, by its clock ticks."""
    ticks = [[int(field) for field in _stat(pid)[_CPU]] for pid in pids]
    return sum(user for user, _ in ticks) / max(1, sum(map(sum, ticks)))


def turns(pids: Iterable[int]) -> int:
    """How often these processes got a processor so far."""
    return sum(int(text.split()[2]) for pid in pids if (text := _read(_PROC / str(pid) / "schedstat")))


def machine_cpu_seconds() -> float:
    """What all cores have worked since the start: user, nice, system and interrupts, in seconds."""
    user, nice, system, _idle, _iowait, irq, softirq, *_ = (
        int(field) for field in _read(_PROC / "stat").split("\n", 1)[0].split()[1:]
    )
    return (user + nice + system + irq + softirq) / _TICK


def memory(pids: Iterable[int]) -> Memory:
    """The memory of these processes; shared pages count once a process in `rss` and `peak`."""
    rss = pss = peak = 0
    for pid in pids:
        status, smaps = _read(_PROC / str(pid) / "status"), _read(_PROC / str(pid) / "smaps_rollup")
        rss += _kib(status, "VmRSS:")
        peak += _kib(status, "VmHWM:")
        pss += _kib(smaps, "Pss:")
    return Memory(rss / 1024, pss / 1024, peak / 1024)


def arguments(pid: int) -> list[str]:
    """The words that this process was started with; none when it has ended."""
    return _read(_PROC / str(pid) / "cmdline").split("\0")[:-1]


def threads(pids: Iterable[int]) -> int:
    """The threads of these processes."""
    return sum(len(list((_PROC / str(pid)).glob("task/*"))) for pid in pids)


def sockets(pids: Iterable[int]) -> int:
    """The open sockets of these processes, listening ones among them."""
    links = (link for pid in pids for link in (_PROC / str(pid)).glob("fd/*"))
    return sum(_target(link).startswith("socket:") for link in links)


def _running(pid: int) -> float:
    # The clock's number as clock_getcpuclockid(3) makes it; time has that function for threads only.
    try:
        return time.clock_gettime_ns(~pid << 3 | _CPU_CLOCK) / 1e9
    except OSError:  # the process has ended
        return 0.0


def _members(place: int, number: int) -> list[int]:
    pids = [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if (stat := _stat(pid)) and int(stat[place]) == number]


def _stat(pid: int) -> list[str]:
    # A program's name stands in parentheses and may itself hold a ")".
    return _read(_PROC / str(pid) / "stat").rpartition(")")[2].split()


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # the process has ended
        return ""


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:  # closed meanwhile
        return ""


def _kib(text: str, label: str) -> int:
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith(label)), 0)
