"""The servers that the live tests share.

A missing server is a skip with its reason on a developer's machine; under CI
tests/conftest.py makes every skip a failure.
"""

import random
import string
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from mxweir_ops.lab.place import temporary_directory
from mxweir_ops.lab.postgresql import PostgreSQL
from mxweir_ops.lab.process import MissingError
from mxweir_ops.lab.rspamd import Rspamd
from mxweir_ops.lab.spamd import Spamd
from mxweir_ops.lab.stack import Plan, Stack

HERE = Path(__file__).parent

DOMAINS = """\
example.org
bücher.example
.tree.example
plain.example
"""

RULES = """\
[[limit]]
name = "sender"
key = "sender"
rate = "10/hour"
burst = 5

[[access]]
block = "sender_org"
value = "bulk.example"
reason = "never confirmed its addresses"

[log]
format = "json"
"""

POLICYD = 'deadline = "10s"'
"""With it Postfix's own timeout: past that, on a busy machine, it would go on without our answer."""

MILTER = """\
deadline = "60s"
tag_at = 5.0
quarantine_at = 30.0
reject_at = 100.0
max_scan_size = "64KiB"
"""

LAST_LINES = 40
"""Of each server's log, in what is told of a failed test."""

LAB_RULES = """\
body LAB_QUARANTINE /mxweir-lab-quarantine/
score LAB_QUARANTINE 50
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this directory is live."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.live)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup() -> Generator[None, object, object]:
    """A fixture whose server this machine does not have skips the test."""
    try:
        return (yield)
    except MissingError as error:
        pytest.skip(str(error))


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call() -> Generator[None, object, object]:
    """So does a test that starts one itself."""
    try:
        return (yield)
    except MissingError as error:
        pytest.skip(str(error))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that failed with a stack at hand tells what its servers have to say."""
    report = yield
    if report.failed and call.excinfo is not None:
        at_hand = (value for entry in call.excinfo.traceback for value in entry.locals.values())
        for stack in {id(value): value for value in at_hand if isinstance(value, Stack)}.values():
            report.sections += told(stack)
    return report


def told(stack: Stack) -> Iterator[tuple[str, str]]:
    """Titles and texts: Postfix's latest complaints, and the ends of the logs."""
    logs = {
        "complaints of Postfix": stack.mx.complaints(),
        "log of Postfix": stack.mx.log().splitlines(),
        "log of the policy daemon": stack.policyd.log().splitlines(),
        "log of the milter": stack.milter.log().splitlines(),
    }
    for name, lines in logs.items():
        if lines:
            yield f"{name} in {stack.directory}", "\n".join(lines[-LAST_LINES:])


@pytest.fixture(scope="session")
def place() -> Iterator[Path]:
    """A directory of short path for the whole run."""
    with temporary_directory() as directory:
        yield directory


@pytest.fixture(scope="session")
def spamd(place: Path) -> Iterator[Spamd]:
    with Spamd(place, LAB_RULES) as server:
        yield server


@pytest.fixture(scope="session")
def rspamd(place: Path) -> Iterator[Rspamd]:
    with Rspamd(place) as server:
        yield server


@pytest.fixture(scope="session")
def postgresql(place: Path) -> Iterator[PostgreSQL]:
    """The one that most tests share; no test may stop or freeze it, or change its settings."""
    with PostgreSQL(place) as server:
        yield server


@pytest.fixture
def database(postgresql: PostgreSQL) -> str:
    """The connection string of an empty database of the test's own, as its owner."""
    return postgresql.dsn(postgresql.new_database())


@pytest.fixture(scope="session")
def stack(place: Path, spamd: Spamd) -> Iterator[Stack]:
    """The one that most tests share; no test may stop it or change its configuration."""
    plan = Plan(engine=spamd.endpoint, domains=DOMAINS, policyd=POLICYD, milter=MILTER, rest=RULES)
    with Stack(place, plan) as server:
        yield server


@pytest.fixture(scope="session")
def libmilter_stack(spamd: Spamd) -> Iterator[Stack]:
    """The same with libmilter's front."""
    milter = f'front = "libmilter"\n{MILTER}'
    plan = Plan(engine=spamd.endpoint, domains=DOMAINS, policyd=POLICYD, milter=milter, rest=RULES)
    with temporary_directory() as directory, Stack(directory, plan) as server:
        yield server


@pytest.fixture(params=["asyncio", "libmilter"])
def scanning(request: pytest.FixtureRequest) -> Stack:
    """A stack with either front: what becomes of mail does not depend on it."""
    name = "stack" if request.param == "asyncio" else "libmilter_stack"
    found: Stack = request.getfixturevalue(name)
    return found


@pytest.fixture
def new_stack() -> Iterator[Callable[..., Stack]]:
    """Starts a stack of the test's own, with the shared one's rules where it says no others."""
    with ExitStack() as everything:

        def start(**plan: Any) -> Stack:
            directory = everything.enter_context(temporary_directory())
            plan = {"domains": DOMAINS, "policyd": POLICYD, "milter": MILTER, "rest": RULES} | plan
            return everything.enter_context(Stack(directory, Plan(**plan)))

        yield start


@pytest.fixture
def sender() -> str:
    """A sender whom no other test uses, with room in every limit."""
    return f"{''.join(random.choices(string.ascii_lowercase, k=12))}@sender.example"
