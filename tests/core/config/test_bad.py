"""Broken configurations are data: FILE.toml beside FILE.expected, which holds the exact text of the error."""

import re
import sys
from pathlib import Path

import pytest

from mxweir.config import ConfigError, load, loads, schema

BAD = Path(__file__).parent / "bad"
FILES = sorted(BAD.glob("*.toml"))


def told(path: Path) -> list[str]:
    """The lines of the error, with the directory taken away."""
    with pytest.raises(ConfigError) as caught:
        load(path)
    return [line.removeprefix(f"{path.parent}/") for line in caught.value.lines()]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_broken_configuration_is_told_in_exactly_these_words(path):
    assert told(path) == path.with_suffix(".expected").read_text().splitlines()


def test_each_broken_configuration_has_its_text_and_each_text_its_configuration():
    assert {path.stem for path in FILES} == {path.stem for path in BAD.glob("*.expected")} != set()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_mistake_names_its_line_and_comes_in_their_order(path):
    lines = [re.match(r"[^:]+:(\d+): ", line) for line in told(path)]
    numbers = [int(match[1]) for match in lines if match is not None]
    assert len(numbers) == len(lines)
    assert numbers == sorted(numbers)


def test_the_error_as_text_is_all_its_lines():
    with pytest.raises(ConfigError) as caught:
        loads("a = 1\nb = 2\n", "x.toml")
    assert str(caught.value).splitlines() == caught.value.lines()
    assert len(caught.value.problems) == 2


def test_a_mistake_in_a_value_hides_none_that_takes_two_keys():
    # `deadline` is wrong by itself; `workers` only beside the missing [redis].
    with pytest.raises(ConfigError) as caught:
        loads('[policyd]\ndeadline = "soon"\nworkers = 2\n')
    assert [problem.place[-1] for problem in caught.value.problems] == ["deadline", "workers"]


def test_a_secret_is_not_told_by_the_error_about_it():
    assert "hunter2" not in " ".join(told(BAD / "secrets.toml"))


def test_of_very_many_mistakes_the_first_hundred_are_told_and_the_rest_counted():
    with pytest.raises(ConfigError) as caught:
        loads("[policyd]\n" + "".join(f"wrong{i} = 1\n" for i in range(102)), "x.toml")
    lines = caught.value.lines()
    assert len(caught.value.problems) == 102
    assert [line.split(":")[1] for line in lines[:-1]] == [str(number) for number in range(2, 102)]
    assert lines[-1] == "x.toml: and 2 more"


def test_however_many_mistakes_there_are_the_text_is_read_for_their_lines_once(monkeypatch):
    read = []

    class Counting(schema.Lines):
        def __init__(self, source):
            read.append(source)
            super().__init__(source)

    # `mxweir.config.load` is the function, and not the module that it is in.
    monkeypatch.setattr(sys.modules[load.__module__], "Lines", Counting)
    text = "".join(
        f'[[limit]]\nname = "l{i}"\nkey = "sender"\nrate = "1/day"\nburts = 1\n' for i in range(50)
    )
    with pytest.raises(ConfigError) as caught:
        loads(text)
    assert [problem.line for problem in caught.value.problems] == [5 * (i + 1) for i in range(50)]
    assert read == [text]


@pytest.mark.parametrize(
    ("place", "line"),
    [
        (("top",), 1),
        (("a",), 3),
        (("a", "b"), 4),
        (("a", "missing"), 3),
        (("a", "c", "d"), 5),
        (("a", "c", "e"), 5),
        (("rows", 0, "k"), 7),
        (("rows", 1, "k"), 9),
        (("rows", 1, "missing"), 8),
        (("rows", 1, "deep", "k"), 11),
        (("rows", 2, "k"), None),
        (("x.y",), 2),
        (("nowhere", "at all"), None),
    ],
)
def test_a_mistake_stands_at_its_key_or_else_at_its_table(place, line):
    text = """top = 1
"x.y" = 1
[a]
"b" = 1
c . 'd' = 1
[[rows]]
k = 1
[[rows]]
k = 2
[rows.deep]
k = 3
"""
    assert schema.Lines(text).of(place) == line
