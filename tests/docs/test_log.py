"""The page of the log, against the names of events in the code."""

import ast
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from mxweir.config.sections import Log
from mxweir.events import Decided, Decision, Observed, Scanned
from mxweir.facts import Facts, Folder
from mxweir.log import LogObserver

TOP = Path(__file__).parents[2]
PACKAGES = ("core/mxweir", "policyd/mxweir_policyd", "milter/mxweir_milter", "ops/mxweir_ops")
TELLING = {"Trouble", "Notice", "notice", "warning", "info", "error", "refuse"}
"""Calls whose first argument is an event's name."""


def name_of(node: ast.expr) -> str | None:
    """A text as it is written, with * for what varies; None for what is no text."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "*" for part in node.values)
    return None


def level_of(call: ast.Call, called: str) -> str:
    """The level at which a call tells its event."""
    given = name_of(call.args[2]) if called in ("Trouble", "Notice") and len(call.args) > 2 else None
    return given or ("info" if called in ("Notice", "notice", "info") else "warning")


def events() -> Iterator[tuple[str, str]]:
    """Every name of an event in the code, and where it stands."""
    for name, _, where in levels():
        yield name, where


def levels() -> Iterator[tuple[str, str, str]]:
    """Every name of an event in the code, its level, and where it stands."""
    for package in PACKAGES:
        for path in sorted((TOP / package).rglob("*.py")):
            if "lab" in path.parts:
                continue  # it tells nothing, and asks servers for their "info"
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and node.args:
                    called = getattr(node.func, "id", getattr(node.func, "attr", ""))
                    name = name_of(node.args[0]) if called in TELLING else None
                    if name and not name.endswith("\n"):
                        yield name, level_of(node, called), f"{path.relative_to(TOP)}:{node.lineno}"


def told(page: str, rows: Callable[[str], list[list[str]]]) -> set[str]:
    """The names on the page, with * for words in capitals."""
    names = {row[0].strip("`") for row in rows(page.split("\n## Notices\n")[1])}
    return {re.sub("REASON|STEP|NAME", "*", name) for name in names} | {"decision", "scan"}


def test_every_event_of_the_code_is_on_the_page(
    page: Callable[[str], str], rows: Callable[[str], list[list[str]]]
) -> None:
    known = told(page("log"), rows)
    assert {f"{where}: {name}" for name, where in events() if name not in known} == set()


def test_every_event_on_the_page_is_in_the_code(
    page: Callable[[str], str], rows: Callable[[str], list[list[str]]]
) -> None:
    assert told(page("log"), rows) - {"decision", "scan"} - {name for name, _ in events()} == set()


def test_every_event_that_the_page_of_failures_names_as_one_is_on_the_page_of_the_log(
    page: Callable[[str], str], rows: Callable[[str], list[list[str]]]
) -> None:
    known = told(page("log"), rows)
    failures = (TOP / "docs" / "failure.md").read_text()
    starts = {name.split()[0] for name in known if " " in name} - {"internal"}
    for said in re.findall(r"`([a-z]+ [a-z ,:]*[a-zA-Z]+)`", failures):
        if said.split()[0] in starts and said != "scan failed":
            generic = re.sub(r"(scan failed: ).*|(internal error at ).*", r"\1\2*", said)
            assert generic in known, said


def test_every_event_has_the_level_that_the_page_says(
    page: Callable[[str], str], rows: Callable[[str], list[list[str]]]
) -> None:
    said: dict[str, str] = {"decision": "info", "scan": "info"}
    for row in rows(page("log").split("\n## Notices\n")[1]):
        name = re.sub("REASON|STEP|NAME", "*", row[0].strip("`"))
        said[name] = f"{said.get(name, '')} {row[1]}"
    assert {
        f"{where}: {name}: {level}" for name, level, where in levels() if level not in said[name]
    } == set()


def fields_written(event: Decided | Scanned) -> set[str]:
    """The fields of the line that an event gets."""
    written = io.StringIO()
    observer = LogObserver(Log(format="json"), lambda: 0.0, "policyd", written)
    observer.handlers()[type(event)](event)
    return set(json.loads(written.getvalue())) - {"time", "level", "daemon", "event"}


def fields_told(page: str, rows: Callable[[str], list[list[str]]], heading: str) -> set[str]:
    """The fields in the table under a heading."""
    section = page.split(f"\n## {heading}\n")[1].split("\n## ", maxsplit=1)[0]
    return {name for row in rows(section) for name in re.findall(r"`(\w+)`", row[0])}


def test_the_page_has_every_field_of_a_decision_and_no_other(
    page: Callable[[str], str], rows: Callable[[str], list[list[str]]]
) -> None:
    folder = Folder()
    parts = folder.client[b"203.0.113.9"], folder.sender[b"a@b.example"], folder.recipient[b"c@d.example"]
    facts = Facts(*parts, b"helo", b"user", b"RCPT", b"limits", b"1.2", b"A1", b"0")
    observed = (Observed("n", "k", "1/1"),)
    decision = Decision("reject", "550 5.7.1 no", "limits", "sender", "a@b.example", "3/3", observed)
    assert fields_told(page("log"), rows, "Decisions") == fields_written(Decided(facts, decision, 0.001))


def test_the_page_has_every_field_of_a_scan_and_no_other(
    page: Callable[[str], str], rows: Callable[[str], list[list[str]]]
) -> None:
    scan = Scanned(
        *("A1", "203.0.113.9", "a@b.example", 1, "tagged", "spamd", 7.0, 5.0, ("X",), "r", 0.1, 9, "a"),
        *("acme", "strict:rejected", "add header", 0.05, "reply-to", "a@b.example", "9/9"),
        observed=(Observed("n", "k", "1/1"),),
    )
    assert fields_told(page("log"), rows, "Scans") == fields_written(scan)
