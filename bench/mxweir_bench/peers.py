"""mxweir with Redis beside the policy daemons of Debian that limit rates: postfwd and policyd-rate-limit.

Three limits each. mxweir and postfwd limit by sender, recipient and client address;
policyd-rate-limit knows one key a request, so it gets three limits of the sender, and
takes part twice: with its SQLite on the disk, as it is shipped, and in memory. All
limits are far from being hit. Each keeps its configuration and its counters in a
directory of ours, and is stopped by its process ids.
"""

import os
import pwd
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from mxweir_bench import load, servers, usage
from mxweir_bench.compare import Spread, ratio, spread
from mxweir_bench.load import Run
from mxweir_bench.report import Part, Target, disturbances, table
from mxweir_bench.servers import Server
from mxweir_bench.shared import CONNECTIONS, check_quiet
from mxweir_bench.tools import Tools
from mxweir_ops.lab.place import free_port
from mxweir_ops.lab.process import LabError, program, wait_until
from mxweir_ops.lab.redis import Redis

KEYS = 2_000
"""Senders, recipients and clients: each is seen once before the clock starts, and some peers are slow."""

WANTED = 10

PRL = "policyd-rate-limit"
"""The program, its package and its user."""

_FIELDS = ("sender", "recipient", "client_address")
_LIMIT = 10_000_000
_START_SECONDS, _STOP_SECONDS = 20.0, 10.0
_DISK = "/var/tmp"

_PRL_CONFIG = """\
debug: False
user: "{user}"
group: "{user}"
pidfile: "{home}/pid"
backend: 0
sqlite_config:
    database: "{home}/db.sqlite3"
SOCKET: ["127.0.0.1", {port}]
socket_permission: 0666
limits:
    - [{limit}, 60]
    - [{limit}, 3600]
    - [{limit}, 86400]
limits_by_id: {{}}
limit_by_sasl: True
limit_by_sender: True
limit_by_ip: False
limited_networks: []
success_action: "DUNNO"
fail_action: "defer_if_permit Rate limit reach, retry later"
db_error_action: "450 4.3.0 no database"
report: False
report_only_if_needed: True
report_limits: []
delay_to_close: 300
"""


def part(tools: Tools, directory: Path, seconds: float, rounds: int) -> Part:
    """All of them in turns, at 64 connections."""
    home = directory / "peers"
    home.mkdir()
    with ExitStack() as stack:
        redis = stack.enter_context(Redis(home))
        disk = Path(stack.enter_context(TemporaryDirectory(prefix="mxweir-", dir=_DISK)))
        disk.chmod(0o755)
        limits = servers.limits(_FIELDS, servers.LASTING)
        ours = stack.enter_context(
            servers.mxweir("mxweir with Redis", home, redis=redis.unix_url, counted=limits)
        )
        others = [
            stack.enter_context(postfwd("postfwd1", home)),
            stack.enter_context(postfwd("postfwd2", home)),
            stack.enter_context(policyd_rate_limit(PRL, disk)),
            stack.enter_context(policyd_rate_limit(f"{PRL} in memory", home)),
        ]
        runs = _measure(tools.policyload, [ours, *others], seconds, rounds)
        check_quiet(ours)
    times = {
        other.name: ratio([run.rps for run in runs[ours.name]], [run.rps for run in runs[other.name]])
        for other in others
    }
    text = f"""\
## Beside other policy daemons

Closed loop at {CONNECTIONS} connections, {KEYS:,} senders, recipients and clients, {rounds} rounds of
{seconds:g} s, loopback TCP; three limits each. mxweir counts in Redis, over a unix socket. Medians; the
ratio is taken within a round, with the middle half of the rounds.
{disturbances([run.others_cpu for of in others for run in runs[of.name]])}

{_table(runs, times)}"""
    judged = [name for name in times if name in ("postfwd1", "postfwd2", PRL)]
    targets = [_target(f"rate, of that of {name}", times[name].median) for name in judged]
    return Part({name: list(map(asdict, of)) for name, of in runs.items()}, text, targets)


@contextmanager
def postfwd(name: str, directory: Path) -> Iterator[Server]:
    """postfwd1, which is one process, or postfwd2, which has many and a cache that counts for them."""
    home = _home(directory / name, "nobody")
    rules = home / "rules"
    rules.write_text(
        "".join(f"id={field}; action=rate({field}/{_LIMIT}/3600/450 4.7.1 limit)\n" for field in _FIELDS)
    )
    address, pidfile, log = f"127.0.0.1:{free_port()}", home / "pid", home / "log"
    argv: list[str | Path] = [program(name, "postfwd"), "--daemon", "--file", rules, "--pidfile", pidfile]
    argv += ["--interface", "127.0.0.1", "--port", address.split(":")[1], "--user", "nobody"]
    argv += ["--group", "nogroup"]
    if name == "postfwd2":
        argv += ["--cache_socket", f"unix::{home}/cache"]
    with _daemon(name, argv, address, pidfile, log) as leader:
        yield Server(name, address, partial(usage.session, leader), log)


@contextmanager
def policyd_rate_limit(name: str, directory: Path) -> Iterator[Server]:
    """policyd-rate-limit, counting in SQLite in this directory."""
    home, port = _home(directory / PRL, PRL), free_port()
    config, log, address = home / "config.yaml", home / "log", f"127.0.0.1:{port}"
    config.write_text(_PRL_CONFIG.format(user=PRL, home=home, port=port, limit=_LIMIT))
    argv: list[str | Path] = [program(PRL, PRL), "--file", config]
    with servers.running(name, argv, address, log) as child:
        yield Server(name, address, servers.members(child), log)


@contextmanager
def _daemon(name: str, argv: Sequence[str | Path], address: str, pidfile: Path, log: Path) -> Iterator[int]:
    """A server that goes to the background in a session of its own; the process id that it wrote down."""
    with log.open("ab") as stream:
        started = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, timeout=_START_SECONDS, check=False
        )
    if started.returncode or not wait_until(lambda: _pid(pidfile) is not None, _START_SECONDS):
        raise LabError(f"{name} does not start: {log.read_text().strip()[-300:]}")
    leader = _pid(pidfile)
    assert leader is not None
    try:
        if not wait_until(lambda: servers.answers(address), _START_SECONDS):
            raise LabError(f"{name} does not answer at {address}: {log.read_text().strip()[-300:]}")
        yield leader
    finally:
        _stop(usage.session(leader))


def _pid(pidfile: Path) -> int | None:
    with suppress(OSError, ValueError):
        return int(pidfile.read_text())
    return None


def _stop(pids: Sequence[int]) -> None:
    """SIGTERM to each and, where that does not help, SIGKILL; returns when they are gone."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        if wait_until(lambda: not any(usage.arguments(pid) for pid in pids), _STOP_SECONDS):
            return


def _home(home: Path, owner: str) -> Path:
    home.mkdir()
    os.chown(home, pwd.getpwnam(owner).pw_uid, -1)
    return home


def _measure(
    policyload: Path, compared: Sequence[Server], seconds: float, rounds: int
) -> dict[str, list[Run]]:
    keys = ["--conns", str(CONNECTIONS), "--keys", str(KEYS)]
    for server in compared:
        load.run(policyload, server, [*keys, "--sweep", "--requests", str(KEYS)])
    runs: dict[str, list[Run]] = {server.name: [] for server in compared}
    for _ in range(rounds):
        for server in compared:
            runs[server.name].append(load.run(policyload, server, [*keys, "--seconds", str(seconds)]))
    return runs


def _table(runs: Mapping[str, Sequence[Run]], times: Mapping[str, Spread]) -> str:
    def row(name: str) -> tuple[str, ...]:
        def median(figure: str) -> float:
            return spread([getattr(run, figure) for run in runs[name]]).median

        of = times.get(name, Spread(1, 1, 1))
        return (
            name,
            f"{median('rps'):,.0f}",
            f"{of.median:.1f} ({of.low:.1f} to {of.high:.1f})",
            f"{median('p50_ms'):.2f}",
            f"{median('p99_ms'):.2f}",
            f"{median('server_cpu'):.0%}",
        )

    return table(
        ("server", "requests/s", "mxweir is faster by", "p50 ms", "p99 ms", "server CPU"), map(row, runs)
    )


def _target(what: str, times: float) -> Target:
    return Target(what, f"at least {WANTED} times", f"{times:.1f} times", times >= WANTED)
