"""conf/mxweir.toml is the manual: it has every key, and what it says is what the program does."""

import itertools
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mxweir.config import Config, ConfigError, loads
from mxweir.config.schema import REQUIRED, Place, declared, show
from mxweir_milter import reloading as milter
from mxweir_policyd import reloading as policyd

SHIPPED = (Path(__file__).parents[3] / "conf/mxweir.toml").read_text()

EXAMPLE = re.compile(r"^#(?=[\w\[])", re.MULTILINE)
"""One `#` right before a key or a table: an example. Prose has a space behind it."""

WITH_EXAMPLES = EXAMPLE.sub("", SHIPPED)


def keys(kind: type[Any], place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Every key that is declared, with its field; of an array of tables, those of its rows."""
    for name, field in declared(kind).items():
        inner = field.metadata.get("table") or field.metadata.get("tables")
        if inner:
            yield from keys(inner, (*place, name))
        else:
            yield (*place, name), field


KEYS = dict(keys(Config))


def written(document: Any, place: Place) -> Iterator[Any]:
    """The values that stand at a place, of all rows."""
    if not place:
        yield document
    elif isinstance(document, list):
        for row in document:
            yield from written(row, place)
    elif place[0] in document:
        yield from written(document[place[0]], place[1:])


def lines_of(place: Place) -> list[int]:
    """Where a key stands in the file, commented out or not; counted from 0."""
    found, table = [], ""
    for number, line in enumerate(WITH_EXAMPLES.splitlines()):
        if header := re.match(r"\[+([\w.]+)\]+$", line):
            table = header[1]
        elif re.match(rf"{place[-1]} *=", line) and table == ".".join(map(str, place[:-1])):
            found.append(number)
    return found


def head_of(place: Place) -> int:
    """Where the table of a key first begins, commented out or not; counted from 0."""
    header = re.compile(rf"\[+{re.escape(show(place[:-1]))}\]+")
    return next((i for i, line in enumerate(WITH_EXAMPLES.splitlines()) if header.fullmatch(line)), 0)


def prose_above(number: int) -> str:
    """The lines of prose right above a line."""
    above = itertools.takewhile(lambda line: line.startswith("# "), reversed(SHIPPED.splitlines()[:number]))
    return "\n".join(reversed(list(above)))


def test_as_shipped_it_is_the_default_configuration():
    config = loads(SHIPPED)
    assert config == loads("")


@pytest.mark.parametrize("place", KEYS, ids=show)
def test_a_value_that_is_written_is_the_default_and_one_without_default_is_an_example(place):
    active = list(written(tomllib.loads(SHIPPED), place))
    default = KEYS[place].metadata["written"]
    in_array = place[0] in ("access", "limit", "postgres", "redis") or place[:2] in (
        ("milter", "engine"),
        ("milter", "policy"),
    )
    assert active == ([] if default is None or default is REQUIRED or in_array else [default])


@pytest.mark.parametrize("place", KEYS, ids=show)
def test_every_key_is_there(place):
    assert list(written(tomllib.loads(WITH_EXAMPLES), place))


@pytest.mark.parametrize("place", KEYS, ids=show)
def test_every_key_is_explained_above_it_or_at_the_head_of_its_table(place):
    lines = SHIPPED.splitlines()
    number = lines_of(place)[0]
    # Two keys may share a text; then nothing but the first stands between it and the second.
    shared = "=" in lines[number - 1] and prose_above(number - 1)
    in_list = re.search(rf"^#   {place[-1]} +\S", prose_above(head_of(place)), re.MULTILINE)
    assert prose_above(number) or shared or in_list


def test_the_examples_are_a_configuration_without_a_warning():
    config = loads(WITH_EXAMPLES)
    assert config.warnings == ()
    assert len(config.limit) == WITH_EXAMPLES.count("[[limit]]")


def test_an_example_of_a_limit_shows_the_default_where_there_is_one():
    first = tomllib.loads(WITH_EXAMPLES)["limit"][0]
    fields = {place[-1]: field.metadata["written"] for place, field in KEYS.items() if place[0] == "limit"}
    assert set(first) == set(fields)
    for name in ("window", "unit", "distinct", "refuse", "mode"):
        assert first[name] == fields[name]


def beyond(default: object) -> str:
    """A value beyond the range of a key with this default; "" if such a key has none."""
    if isinstance(default, int) and not isinstance(default, bool):
        return "-1"
    if re.fullmatch(r"\d+(ms|s|m|h|d)", str(default)):
        return "'9999d'"
    return "'9999GiB'" if re.fullmatch(r"\d+KiB", str(default)) else ""


RANGED = [place for place, field in KEYS.items() if beyond(field.metadata["written"])]


@pytest.mark.parametrize("place", RANGED, ids=show)
def test_the_range_of_a_value_is_told_where_it_is_explained(place):
    with pytest.raises(ConfigError) as caught:
        loads(f"{show(place)} = {beyond(KEYS[place].metadata['written'])}")
    problems = (problem.what for problem in caught.value.problems if problem.place == place)
    told = re.search(r"\S+ to \S+$", next(problems))
    assert told is not None
    number = lines_of(place)[0]
    text = prose_above(number) or prose_above(number - 1) or prose_above(head_of(place))
    text = text.replace("\n# ", " ")
    assert told[0] in text or told[0].replace("0s to", "up to") in text


NEEDS_A_RESTART = {
    ("state_dir",),
    *(("policyd", key) for key in policyd._FIXED),
    *(("milter", key) for key in milter._FIXED),
    *(place for place in KEYS if place[0] == "log"),
}


@pytest.mark.parametrize("place", KEYS, ids=show)
def test_what_needs_a_restart_says_so_and_nothing_else_does(place):
    number = lines_of(place)[0]
    text = prose_above(number) or prose_above(number - 1)
    said = re.search(r"Needs? a restart\.", text + prose_above(head_of(place)))
    assert bool(said) == (place in NEEDS_A_RESTART)


def test_prose_and_examples_cannot_be_mistaken_for_each_other():
    for line in SHIPPED.splitlines():
        if line.startswith("#"):
            assert re.match(r"#($| |\w+ = .|\[\[?[\w.]+\]\]?$)", line), line
    assert max(map(len, SHIPPED.splitlines())) <= 118
