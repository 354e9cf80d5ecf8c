"""What the tests of the documents read."""

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

TOP = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def script() -> Callable[[str], ModuleType]:
    """A module of scripts/, by its name."""

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, TOP / "scripts" / f"{name}.py")
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def page() -> Callable[[str], str]:
    """A page of docs/reference/, by its name."""
    return lambda name: (TOP / "docs" / "reference" / f"{name}.md").read_text()


@pytest.fixture(scope="session")
def rows() -> Callable[[str], list[list[str]]]:
    """The rows of all tables in a text, each as its cells; heads of tables are left out."""

    def read(text: str) -> list[list[str]]:
        lines = text.splitlines()
        body = [
            line
            for line, after in zip(lines, [*lines[1:], ""], strict=True)
            if (
                line.startswith("|")
                and not set(line) <= set("|-: ")
                and not set(after) <= set("|-:") | set(" ")
            )
            or (line.startswith("|") and not set(line) <= set("|-: ") and not after.startswith("|"))
        ]
        return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in body]

    return read


@pytest.fixture(scope="session")
def documents() -> dict[str, str]:
    """Every document that users read: path below the top → text."""
    found = [TOP / "README.md", TOP / "CHANGELOG.md", TOP / "CONTRIBUTING.md", *(TOP / "docs").rglob("*.md")]
    return {str(path.relative_to(TOP)): path.read_text() for path in found}
