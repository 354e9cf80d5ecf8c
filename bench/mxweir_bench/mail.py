"""CPU time a message through real Postfix: without a policy service, with the no-op server, with mxweir.

One question adds some hundredths of a millisecond to a message that costs
more than one. So there are many short rounds in one Postfix (asking.py), smtpd and
the policy server are counted apart from the rest, and every figure comes with its
error. Postfix without a server takes part twice, to show what a difference of
nothing looks like, and with the no-op server, too: in a quotient of about two the
noise of its figure weighs twice as much as that of ours. The mail is of two kinds:
with one recipient, which is what most mail has, and with twenty, each of them a
question.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from mxweir_bench import asking, servers, usage
from mxweir_bench.asking import Run, Setup
from mxweir_bench.compare import Estimate, mean, quotient, trimmed
from mxweir_bench.delivery import SESSIONS, Mail
from mxweir_bench.report import Part, Target, disturbances, table
from mxweir_bench.tools import Tools

SINGLE, MANY = Mail(60, 1), Mail(15, 20)

NONE, NONE_AGAIN, NOOP, NOOP_AGAIN = "none", "none again", "noop", "noop again"
MXWEIR, LOGGING = "mxweir", "mxweir with log"

Runs = Mapping[str, Sequence[Run]]
"""Of each set-up by its name, the runs in their order."""


def part(tools: Tools, directory: Path, rounds: int) -> Part:
    """Postfix alone, with the no-op server, and with mxweir with and without a log line a decision."""
    home = directory / "mail"
    home.mkdir()
    with ExitStack() as stack:
        noop = stack.enter_context(servers.noop(tools.noop, home))
        asked = {
            NONE: None,
            NONE_AGAIN: None,
            NOOP: noop,
            NOOP_AGAIN: noop,
            MXWEIR: stack.enter_context(servers.mxweir("mxweir", home)),
            LOGGING: stack.enter_context(servers.mxweir("mxweir with log", home, level="info")),
        }
        setups = stack.enter_context(asking.postfix(home, asked))
        single, many = (
            asking.measure(setups, mail, times)
            for mail, times in ((SINGLE, rounds), (MANY, rounds // 4 or 1))
        )
        shares = table(("server", "of its CPU time outside the kernel"), map(_outside, setups[2:]))
    text = f"""\
## CPU time a message, through Postfix

Asked at RCPT over loopback TCP. {rounds} rounds of {SINGLE.messages} messages with one recipient, and
{rounds // 4 or 1} of {MANY.messages} with {MANY.recipients}, {SINGLE.size // 1024} KiB, a connection each,
{SESSIONS} sessions; the queue in memory, transport `discard`. Microseconds of CPU a message until the
queue is empty, and what each adds to the mean of both rows without a server in the same round; means
without the highest and the lowest fifth, with their standard error. "Elsewhere" is Postfix's other processes
and the client.
{disturbances([run.others_cpu for runs in (*single.values(), *many.values()) for run in runs])}

One recipient a message:

{markdown(single)}

{MANY.recipients} recipients a message:

{markdown(many)}

{shares}"""
    targets = [
        _target("CPU added to a message of one recipient, mxweir : noop", single, "asking_us"),
        _target("the same with all of Postfix's processes and the client", single, "all_us"),
        _target(f"CPU added to one of {MANY.recipients} recipients, mxweir : noop", many, "all_us"),
    ]
    return Part({"single": _figures(single), "many": _figures(many)}, text, targets)


def added(runs: Runs, name: str, figure: str) -> list[float]:
    """Round by round, what this set-up has more of the figure than those without a server."""
    return [
        getattr(run, figure) - (getattr(one, figure) + getattr(other, figure)) / 2
        for run, one, other in zip(runs[name], runs[NONE], runs[NONE_AGAIN], strict=True)
    ]


def markdown(runs: Runs) -> str:
    """The set-ups as a table."""
    return table(
        (
            "asked",
            "messages/s",
            "CPU",
            "added in all",
            "elsewhere",
            "in smtpd",
            "in the server",
            "smtpd and server : noop's",
            "the server's turns",
        ),
        (_row(runs, name) for name in runs),
    )


def _row(runs: Runs, name: str) -> tuple[str, ...]:
    def more(figure: str) -> str:
        estimate = mean(added(runs, name, figure))
        return f"{estimate.value:+.0f} ± {estimate.error:.0f}"

    def plain(figure: str) -> float:
        return trimmed([getattr(run, figure) for run in runs[name]])

    return (
        name,
        f"{plain('rate'):,.0f}",
        f"{plain('all_us'):,.0f}",
        more("all_us"),
        more("elsewhere_us"),
        more("smtpd_us"),
        more("server_us"),
        str(against_noop(runs, name, "asking_us")),
        f"{plain('server_turns'):.2f}",
    )


def against_noop(runs: Runs, name: str, figure: str) -> Estimate:
    """How many times as much of the figure this set-up adds as the no-op server, of both its rows."""
    noops = zip(added(runs, NOOP, figure), added(runs, NOOP_AGAIN, figure), strict=True)
    return quotient(added(runs, name, figure), [fmean(both) for both in noops])


def _outside(setup: Setup) -> tuple[str, str]:
    return setup.name, f"{usage.user_share(setup.server_pids()):.0%}"


def _target(what: str, runs: Runs, figure: str) -> Target:
    """Twice what the no-op server adds; missed, too, when that cannot be told from the noise."""
    times = against_noop(runs, MXWEIR, figure)
    noise = times.error > times.value / 4
    measured = f"{times} times{', lost in the noise' if noise else ''}"
    return Target(what, "at most 2 times", measured, times.value <= 2 and not noise)


def _figures(runs: Runs) -> dict[str, list[dict[str, Any]]]:
    return {name: [asdict(run) for run in of] for name, of in runs.items()}
