"""Messages a second through real Postfix: without a milter, with mxweir's, and with what there was before.

A milter costs Postfix a conversation for each message. What is compared: no
milter; a milter on pymilter that only accepts, which is the least that one in
Python has cost so far, and a still leaner one, which is told of the body alone;
one on mxweir's own event loop that looks at nothing, the floor below mxweir;
mxweir with either front, over a unix socket and over TCP; spamass-milter. Those
with a scanner have the same one, which answers at once, so that the figures are
the milters' own. A run in which it was not asked about each message is no run.
"""

import smtplib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

from mxweir_bench import delivery, milters
from mxweir_bench.compare import ratio
from mxweir_bench.delivery import Mail, Rounds, Setup, figures, median
from mxweir_bench.milters import Engine, Milter
from mxweir_bench.report import Part, Target, at_least, disturbances, table
from mxweir_bench.tools import Tools
from mxweir_ops.lab.letters import letter, new_message_id
from mxweir_ops.lab.process import LabError

SESSIONS = 40
"""As many SMTP clients at once as fill two processors in each set-up, and no more.

With 20, they were full where Postfix asked no milter, and not with one: while messages were with it, nobody
else had anything to do. With 60 and 100 nobody delivers more: more processes share the same caches.
"""

MAILS = {
    "4 KiB": Mail(2000, sessions=SESSIONS),
    "100 KiB": Mail(1600, size=100 * 1024, sessions=SESSIONS),
}

NONE, ACCEPT, OURS, SPAMASS = "none", "pymilter, only accepts", "mxweir", "spamass-milter"
ACCEPT_TCP, OURS_TCP, LIBMILTER = f"{ACCEPT}, TCP", f"{OURS}, TCP", f"{OURS}, libmilter"
BODY = "pymilter, body alone"
FLOOR = "asyncio, looks at nothing"

WANTED = {
    (OURS, ACCEPT): 1.0,
    (OURS, NONE): 0.6,
    (OURS, SPAMASS): 3.0,
    (OURS_TCP, OURS): 0.8,
}
"""Whose rate is to be at least what share of whose, for mail of either size."""


def part(tools: Tools, directory: Path, rounds: int) -> Part:
    """All set-ups, with small and with large mail."""
    home = directory / "milter"
    home.mkdir()
    with ExitStack() as stack:
        engine = stack.enter_context(milters.engine(tools.fakespamd, home))
        # As many at once as there are sessions: this engine has no processes that could be too few.
        scans = milters.spamd(engine.endpoint, f"max_scans = {SESSIONS}")
        ours = [
            milters.mxweir(OURS, home, scans, "asyncio"),
            milters.mxweir(OURS_TCP, home, scans, "asyncio", unix=False),
            milters.mxweir(LIBMILTER, home, scans, "libmilter"),
        ]
        scanning = [stack.enter_context(each).milter for each in ours]
        scanning.append(stack.enter_context(milters.spamass(SPAMASS, home, engine)))
        accepting = [
            stack.enter_context(milters.accept(name, home, unix=name != ACCEPT_TCP, body_alone=name == BODY))
            for name in (BODY, ACCEPT, ACCEPT_TCP)
        ]
        accepting.append(stack.enter_context(milters.floor(FLOOR, home)))
        # Those that are compared stand side by side.
        none = stack.enter_context(setup(NONE, home))
        scanned = [stack.enter_context(setup(each.name, home, each, engine)) for each in scanning]
        accepted = [stack.enter_context(setup(each.name, home, each)) for each in accepting]
        for each in scanned:
            check_work(each)
        setups = [none, *scanned[:-1], *accepted, scanned[-1]]
        runs = {size: delivery.measure(setups, mail, rounds) for size, mail in MAILS.items()}
    targets = [target for size, of in runs.items() for target in _targets(size, of)]
    shown = {
        size: {name: [asdict(run) for run in of] for name, of in all_.items()} for size, all_ in runs.items()
    }
    return Part(shown, _text(runs, rounds), targets)


@contextmanager
def setup(
    name: str, directory: Path, milter: Milter | None = None, engine: Engine | None = None
) -> Iterator[Setup]:
    """A Postfix that asks this milter; LabError when it cannot be had."""
    # Mail for one domain is delivered, so that what a milter did to it can be looked at.
    settings = {"transport_maps": "inline:{ kept.example=virtual: }"}
    if milter is not None:
        settings["smtpd_milters"] = milter.setting
    with delivery.postfix(name, directory, settings) as postfix:
        pids = milter.pids if milter is not None else tuple
        yield Setup(name, postfix, "milter", pids, engine.answered if engine is not None else None)


def check_work(each: Setup) -> None:
    """Prove that a milter does what it is measured for; LabError says what it leaves out."""
    message_id = new_message_id()
    with smtplib.SMTP("127.0.0.1", each.postfix.port, timeout=30) as client:
        client.sendmail("a@sender.example", ["b@kept.example"], letter(message_id=message_id))
    (delivered,) = each.postfix.maildir.wait_for(message_id)
    if "score=0.1" not in (said := delivered.header("X-Spam-Status") or "nothing"):
        raise LabError(f"{each.name} does not mark a message with its score: it says {said}")


def markdown(runs: Rounds) -> str:
    """One table; shares are of the rate of the same round."""
    rows = []
    for name, of in runs.items():
        share = ratio(figures(of, "rate"), figures(runs[NONE], "rate"))
        rows.append(
            (
                name,
                f"{median(of, 'rate'):,.0f}",
                f"{share.median:.0%} ({share.low:.0%} to {share.high:.0%})",
                f"{median(of, 'cpu_ms'):.2f}",
                f"{median(of, 'server_cpu_ms'):.2f}",
                f"{median(of, 'busy'):.0%}",
            )
        )
    return table(("milter", "messages/s", "of none", "CPU ms/message", "milter's own", "busy"), rows)


def _targets(size: str, runs: Rounds) -> list[Target]:
    rates = {name: figures(of, "rate") for name, of in runs.items()}
    return [
        at_least(f"{size}: {one}, of {other}", ratio(rates[one], rates[other]).median, share)
        for (one, other), share in WANTED.items()
    ]


def _text(runs: dict[str, Rounds], rounds: int) -> str:
    sent = " and of ".join(f"{mail.messages} messages of {size}" for size, mail in MAILS.items())
    everything: Sequence[float] = [
        run.others_cpu for of in runs.values() for all_ in of.values() for run in all_
    ]
    tables = "\n\n".join(f"{size}:\n\n{markdown(of)}" for size, of in runs.items())
    return f"""\
## Messages a second through Postfix, by milter

{rounds} rounds of {sent}, a connection each, {SESSIONS} sessions; queue in
memory, transport `discard`; the clock stops when all is delivered. Medians; the share is of the rate without
a milter in the same round, with the middle half of the rounds. CPU is that of Postfix, client and milter
together; busy, the share of the processors' time in which they had anything to do.
{disturbances(everything)}

{tables}"""
