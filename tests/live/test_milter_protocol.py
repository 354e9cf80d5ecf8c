"""Our front beside libmilter's: the same mail server says the same, and hears the same, byte for byte.

What Postfix never says, `miltertest` does, and scripts for it stand in miltertest/.
"""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import pytest

from mxweir.endpoint import Unix
from mxweir_milter.fronts import replies
from mxweir_ops.lab.daemons import Addresses, Daemon, Setup
from mxweir_ops.lab.hostile import HostileEngine, Manner
from mxweir_ops.lab.mta import ACTIONS, STEPS, Mta
from mxweir_ops.lab.place import temporary_directory
from mxweir_ops.lab.process import MissingError, program

SCRIPTS = sorted((Path(__file__).parent / "miltertest").glob("*.lua"))
FRONTS = ("asyncio", "libmilter")

SETTINGS = """\
skip = ["authenticated"]
max_scan_size = "100KiB"
quarantine_at = 8.0
reject_at = 12.0
"""

SET_SYMBOL_LIST = 0x100
"""libmilter's front asks for no macros, ours does: left out where the two are compared."""


LEAVE_OUT_END_OF_HEADER = 0x40
NO_REPLY_DATA, NO_REPLY_BODY = 0x10000, 0x80000
DIFFERENT = LEAVE_OUT_END_OF_HEADER | 0x40000 | NO_REPLY_DATA | NO_REPLY_BODY
"""pymilter has the end of the header announced without a reply, where ours has it left out; and ours alone
does without replies at DATA and to the body."""


def agree(mta: Mta, steps: int = STEPS) -> None:
    """Negotiate what both can do, and compare what comes after it."""
    common = steps & ~(LEAVE_OUT_END_OF_HEADER | NO_REPLY_DATA | NO_REPLY_BODY)
    mta.negotiate(6, ACTIONS & ~SET_SYMBOL_LIST, common)
    mta.heard.clear()


class Fronts:
    """A milter of each kind, with one scanner, whose score the tests set."""

    def __init__(self, engine: HostileEngine, directory: Path) -> None:
        self.engine = engine
        self.daemons: dict[str, Daemon] = {}
        for front in FRONTS:
            home = directory / front
            (home / "state").mkdir(parents=True)
            addresses = Addresses.in_directory(home)
            setup = Setup(
                addresses=addresses,
                state_dir=home / "state",
                domains_file=home / "domains",
                engine=engine.endpoint,
                milter=f'front = "{front}"\n{SETTINGS}',
                rest='[log]\nformat = "json"\n',
            )
            (home / "mxweir.toml").write_text(setup.toml())
            self.daemons[front] = Daemon("milter", home / "mxweir.toml")

    def address(self, front: str) -> Unix:
        return Unix(str(self.daemons[front].config_file.with_name("milter")))


@pytest.fixture(scope="module")
def fronts() -> Iterator[Fronts]:
    if find_spec("Milter") is None:
        raise MissingError("pymilter is not installed: pip install 'mxweir[milter]'")
    with ExitStack() as running:
        directory = running.enter_context(temporary_directory())
        engine = HostileEngine("spamd", Unix(str(directory / "engine")))
        running.enter_context(engine)
        made = Fronts(engine, directory)
        for daemon in made.daemons.values():
            running.enter_context(daemon)
        yield made


@pytest.fixture
def scoring(fronts: Fronts) -> Iterator[Callable[[float], None]]:
    def score(points: float) -> None:
        fronts.engine.settings.score = points

    yield score
    score(0.1)
    fronts.engine.manner = Manner.PROMPT


def heard(fronts: Fronts, talk: Callable[[Mta], None]) -> list[bytes]:
    """All that each front answers to the same talk."""
    found = []
    for front in FRONTS:
        with Mta(fronts.address(front)) as mta:
            talk(mta)
            found.append(bytes(mta.heard))
    return found


def both_say_the_same(fronts: Fronts, talk: Callable[[Mta], None]) -> bytes:
    ours, libmilters = heard(fronts, talk)
    assert ours == libmilters
    return ours


@pytest.mark.parametrize("version", [2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("steps", [STEPS, 0x7F, 0x3FF, 0, 0x1FFBFF, 0xFFFFF])
def test_whatever_a_mail_server_offers_both_fronts_agree_to_the_same(
    fronts: Fronts, version: int, steps: int
) -> None:
    agreed = []
    for front in FRONTS:
        with Mta(fronts.address(front)) as mta:
            data = mta.negotiate(version, ACTIONS & ~SET_SYMBOL_LIST, steps)
            numbers = [int.from_bytes(data[start : start + 4]) for start in range(0, len(data), 4)]
            agreed.append([*numbers[:2], numbers[2] & ~DIFFERENT])
    assert agreed[0] == agreed[1]
    assert len(agreed[0]) == 3


@pytest.mark.parametrize("steps", [STEPS, 0x7F, 0x3FF, 0, 0xFFFFF])
@pytest.mark.parametrize("points", [0.1, 7.0, 9.0, 20.0])
def test_a_message_is_answered_with_the_same_bytes_whatever_was_agreed_on_and_whatever_its_score(
    fronts: Fronts, scoring: Callable[[float], None], steps: int, points: float
) -> None:
    scoring(points)

    def talk(mta: Mta) -> None:
        agree(mta, steps)
        mta.greet()
        for _ in range(2):
            mta.deliver(
                headers=[(b"Subject", b" hello"), (b"X-Spam-Flag", b" NO"), (b"x-spam-flag", b" YES")]
            )

    said = both_say_the_same(fronts, talk)
    assert b"550 5.7.1" in said if points == 20.0 else b"X-Spam-Score" in said


def test_the_rest_of_a_large_message_is_declined_with_the_same_bytes(fronts: Fronts) -> None:
    def talk(mta: Mta) -> None:
        agree(mta)
        mta.greet()
        mta.deliver(body=b"x" * 300_000)

    said = both_say_the_same(fronts, talk)
    assert replies.SKIP in said
    assert b"reason=too large" in said


def test_an_authenticated_clients_message_is_let_go_with_the_same_bytes(fronts: Fronts) -> None:
    def talk(mta: Mta) -> None:
        agree(mta)
        mta.greet()
        for user in ("anna", ""):
            mta.define(b"M", ["{auth_authen}", user])
            mta.deliver()

    both_say_the_same(fronts, talk)


def test_an_absent_scanner_is_told_with_the_same_bytes(
    fronts: Fronts, scoring: Callable[[float], None]
) -> None:
    fronts.engine.manner = Manner.CLOSING

    def talk(mta: Mta) -> None:
        agree(mta)
        mta.greet()
        mta.deliver()

    assert b"unscanned, reason=" in both_say_the_same(fronts, talk)


def test_after_an_abort_and_for_another_client_the_answers_are_the_same_bytes(fronts: Fronts) -> None:
    def talk(mta: Mta) -> None:
        agree(mta)
        mta.greet()
        mta.say(b"M", b"<a@sender.example>\0")
        mta.say(b"A")
        mta.deliver()
        mta.say(b"K")
        mta.greet("other.example", "203.0.113.77")
        mta.deliver()

    both_say_the_same(fronts, talk)


def test_on_tcp_no_step_waits_for_an_acknowledgement_that_is_delayed(fronts: Fronts) -> None:
    # Delayed, each message takes 90 ms, twice the delay; else one. A busy machine is not busy all the time.
    with temporary_directory() as directory:
        (directory / "state").mkdir()
        addresses = Addresses.on_loopback()
        setup = Setup(
            addresses=addresses,
            state_dir=directory / "state",
            domains_file=directory / "domains",
            engine=fronts.engine.endpoint,
        )
        (directory / "mxweir.toml").write_text(setup.toml())
        with Daemon("milter", directory / "mxweir.toml"), Mta(addresses.milter) as mta:
            mta.negotiate()
            mta.greet()

            def seconds() -> float:
                began = time.monotonic()
                mta.deliver()
                return time.monotonic() - began

            assert any(seconds() < 0.04 for _ in range(500))


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_miltertest_finds_nothing_wrong(fronts: Fronts, front: str, script: Path) -> None:
    miltertest = program("miltertest", "miltertest")
    address = f"unix:{fronts.address(front).path}"
    done = subprocess.run(
        [miltertest, "-D", f"address={address}", "-s", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
