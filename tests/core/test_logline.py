import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxweir.logline import jsonline, logfmt, printable

SIGNS = st.text("ab=\"\\ \n\t\x00\x7f\x85\u2028\u202e\ud800\xe9,;:[]{}'", max_size=12)
RECORDS = st.lists(SIGNS | st.text(max_size=12), min_size=1, max_size=4).map(
    lambda values: {f"f{i}": value for i, value in enumerate(values)}
)


def parsed(line: str) -> dict[str, str]:
    """Take a line apart as a reader of logfmt does: quoted values with backslashes, or bare ones."""
    found = {}
    rest = line
    while rest:
        match = re.match(r'(\w+)=(?:"((?:[^"\\]|\\["\\])*)"|([^\s"=\\]*))(?: (?=.)|$)', rest)
        assert match is not None, rest
        found[match[1]] = re.sub(r"\\(.)", r"\1", match[2]) if match[2] is not None else match[3]
        rest = rest[match.end() :]
    return found


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("plain", "plain"),
        ("", ""),
        ("bob@b.example", "bob@b.example"),
        ("[2001:db8::1]", "[2001:db8::1]"),
        ("two words", '"two words"'),
        ("a=b", '"a=b"'),
        ('a"b', '"a\\"b"'),
        ("a\\b", '"a\\\\b"'),
        ("a\nb", '"a\\\\nb"'),
        ("\x1b[2J", '"\\\\x1b[2J"'),
        ("\u2028", '"\\\\u2028"'),
        ("\u202e", '"\\\\u202e"'),
        ("\udce9", '"\\\\udce9"'),
        (7, "7"),
        (0.25, "0.25"),
        (None, "None"),
        (["a b", "c"], '"[\\"a b\\", \\"c\\"]"'),
        ([], "[]"),
    ],
)
def test_a_value_is_bare_or_quoted(value, written):
    assert logfmt({"first": 1, "field": value, "last": "x"}) == f"first=1 field={written} last=x"


@given(RECORDS)
def test_a_reader_finds_the_fields_that_were_written_and_their_values(record):
    line = logfmt(record)
    assert line.isprintable()
    assert parsed(line) == {name: printable(value) for name, value in record.items()}


@given(st.text() | SIGNS)
def test_what_is_printable_already_stays_and_all_is_printable_afterwards(text):
    shown = printable(text)
    assert isinstance(shown, str)
    assert shown.isprintable()
    assert shown == text or not text.isprintable()


@given(RECORDS)
def test_a_json_line_is_ascii_and_reads_as_the_same_record(record):
    line = jsonline(record)
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line) == {name: printable(value) for name, value in record.items()}


@pytest.mark.parametrize("value", ["x" * 5000, "\n" * 5000, "x " * 5000, '"' * 5000])
def test_a_long_value_is_cut_and_says_so(value):
    for line in (logfmt({"a": value, "b": "end"}), jsonline({"a": value, "b": "end"})):
        assert len(line) < 2100
        assert "\u2026" in line or "\\u2026" in line
    assert logfmt({"a": value, "b": "end"}).endswith('\u2026" b=end')


def test_a_line_of_many_values_that_are_each_short_is_not_cut():
    record = {f"f{i}": "x" * 900 for i in range(5)}
    assert parsed(logfmt(record)) == record
