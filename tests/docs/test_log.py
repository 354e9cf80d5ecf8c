"""The page of the log, against the names of events in the code."""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

TOP = Path(__file__).parents[2]
PACKAGES = ("core/mxweir", "policyd/mxweir_policyd", "milter/mxweir_milter", "ops/mxweir_ops")
TELLING = {"Trouble", "Notice", "notice", "warning", "info", "error", "_refuse"}
"""Calls whose first argument is an event's name."""


def name_of(node: ast.expr) -> str | None:
    """A text as it is written, with * for what varies; None for what is no text."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "*" for part in node.values)
    return None


def events() -> Iterator[tuple[str, str]]:
    """Every name of an event in the code, and where it stands."""
    for package in PACKAGES:
        for path in sorted((TOP / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and node.args:
                    called = getattr(node.func, "id", getattr(node.func, "attr", ""))
                    name = name_of(node.args[0]) if called in TELLING else None
                    if name and not name.endswith("\n"):
                        yield name, f"{path.relative_to(TOP)}:{node.lineno}"


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
    assert told(page("log"), rows) - {name for name, _ in events()} == set()


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
