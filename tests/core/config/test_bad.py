"""Broken configurations are data: FILE.toml beside FILE.expected, which holds the exact text of the error."""

import re
from pathlib import Path

import pytest

from mxweir.config import ConfigError, load, loads

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
