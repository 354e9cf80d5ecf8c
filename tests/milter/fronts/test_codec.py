import contextlib
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxweir_milter.fronts import codec
from mxweir_milter.fronts.codec import LARGEST, CommandReader, ProtocolError

SESSION = [
    (b"O", bytes(3) + b"\6" + bytes(2) + b"\1\xff" + b"\0\x1f\xff\xff"),
    (b"D", b"Cj\0mx.example.org\0{daemon_name}\0smtpd\0"),
    (b"C", b"mail.sender.example\0004\x12\x67203.0.113.9\0"),
    (b"H", b"helo.sender.example\0"),
    (b"M", b"<a@sender.example>\0SIZE=100\0SMTPUTF8\0"),
    (b"R", b"<b@example.org>\0"),
    (b"T", b""),
    (b"L", b"Subject\0 hello\0"),
    (b"L", b"X\0\0"),
    (b"N", b""),
    (b"B", b"hello\r\n\0\xff"),
    (b"E", b""),
    (b"A", b""),
    (b"U", b"NOOPE\0"),
    (b"K", b""),
    (b"Q", b""),
]
COMMANDS = [
    codec.Negotiate(6, 0x1FF, 0x1FFFFF),
    codec.Define(b"C", {"j": "mx.example.org", "{daemon_name}": "smtpd"}),
    codec.Connect(b"mail.sender.example", b"4", 0x1267, b"203.0.113.9"),
    codec.Helo(b"helo.sender.example"),
    codec.Mail(b"<a@sender.example>", [b"SIZE=100", b"SMTPUTF8"]),
    codec.Rcpt(b"<b@example.org>", []),
    codec.Data(),
    codec.Header(b"Subject", b" hello"),
    codec.Header(b"X", b""),
    codec.EndOfHeader(),
    codec.Body(b"hello\r\n\0\xff"),
    codec.End(b""),
    codec.Abort(),
    codec.Unknown(b"NOOPE"),
    codec.Quit(True),
    codec.Quit(False),
]


def packed(letter, data):
    return (1 + len(data)).to_bytes(4) + letter + data


def parse(letter, data):
    """One packet as a command."""
    (command,) = CommandReader().feed(packed(letter, data))
    return command


WIRE = b"".join(packed(*packet) for packet in SESSION)


def read(reader, pieces):
    """Commands, with their kinds, and the words in which reading ended, if it did."""
    found = []
    try:
        for piece in pieces:
            for command in reader.feed(piece):
                found.append((type(command), command))  # noqa: PERF401 -- those before an error count
    except ProtocolError as error:
        return found, str(error)
    return found, ""


def cut(data, places):
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def test_no_macros_for_a_header_field_or_recipient_are_not_told_but_some_are():
    wire = packed(b"D", b"L") + packed(b"D", b"Li\0x\0") + packed(b"D", b"R") + packed(b"D", b"C")
    wire += packed(b"L", b"X\0\0")
    found, error = read(CommandReader(), [wire])
    assert [command for _, command in found] == [
        codec.Define(b"L", {"i": "x"}),
        codec.Define(b"C", {}),
        codec.Header(b"X", b""),
    ]
    assert not error


def test_every_command_is_understood():
    found, error = read(CommandReader(), [WIRE])
    assert [command for _, command in found] == COMMANDS
    assert [kind for kind, _ in found] == [type(command) for command in COMMANDS]
    assert error == ""


def test_byte_by_byte_it_means_the_same():
    assert read(CommandReader(), [bytes([byte]) for byte in WIRE]) == read(CommandReader(), [WIRE])


@given(st.lists(st.integers(0, len(WIRE))))
def test_however_it_is_cut_it_means_the_same(places):
    assert read(CommandReader(), cut(WIRE, places)) == read(CommandReader(), [WIRE])


@given(st.binary(max_size=2000), st.lists(st.integers(0, 2000)), st.integers(0, len(WIRE)))
def test_rubbish_anywhere_is_told_as_such_or_understood_and_never_raises_anything_else(rubbish, places, at):
    data = WIRE[:at] + rubbish + WIRE[at:]
    assert read(CommandReader(), cut(data, places)) == read(CommandReader(), [data])


@given(st.sampled_from(SESSION), st.binary(max_size=60))
def test_any_data_after_any_letter_is_a_command_or_a_protocol_error(packet, data):
    letter, _ = packet
    with contextlib.suppress(ProtocolError):
        parse(letter, data)


@pytest.mark.parametrize("length", [0, LARGEST + 1, 2**31, 2**32 - 1])
def test_a_length_that_cannot_be_is_refused_before_anything_is_kept(length):
    reader = CommandReader()
    found, error = read(reader, [packed(b"T", b"") + length.to_bytes(4) + b"x" * 100])
    assert [command for _, command in found] == [codec.Data()]
    assert error == f"a packet of {length} bytes; 1 to {LARGEST} are allowed"
    assert reader._held == b""


def test_the_largest_packet_is_taken_and_no_more_than_one_is_held():
    reader = CommandReader()
    whole = packed(b"L", b"Name\0" + b"x" * (LARGEST - 7) + b"\0")
    for start in range(0, len(whole) - 1000, 1000):
        assert list(reader.feed(whole[start : start + 1000])) == []
        assert len(reader._held) <= len(whole)
    rest = len(whole) - len(reader._held)
    assert list(reader.feed(whole[-rest:] + whole[:100])) == [codec.Header(b"Name", b"x" * (LARGEST - 7))]
    assert len(reader._held) == 100


@given(st.integers(1, LARGEST - 1), st.lists(st.integers(0, 2 * LARGEST)))
def test_a_piece_of_the_body_comes_as_it_arrives_and_ends_once(size, places):
    piece = random.Random(size).randbytes(size)
    reader, came, ended = CommandReader(), b"", 0
    for part in cut(packed(b"B", piece) + packed(b"E", b""), places):
        for command in reader.feed(part):
            if isinstance(command, codec.Body):
                came += command.piece
                ended += command.ends
            else:
                assert (command, ended) == (codec.End(b""), 1)
        assert len(reader._held) <= 4200
    assert came == piece
    assert ended == 1


@pytest.mark.parametrize("begin", range(1, 6))
def test_a_large_piece_is_not_waited_for_wherever_its_begin_is_cut(begin):
    reader = CommandReader()
    wire = packed(b"B", b"x" * 60_000)
    came = [command for part in (wire[:begin], wire[begin:1005]) for command in reader.feed(part)]
    parts = [command.piece for command in came if isinstance(command, codec.Body)]
    assert (b"".join(parts), bytes(reader._held)) == (b"x" * 1000, b"")


def test_what_stands_before_an_error_is_still_given():
    found, error = read(CommandReader(), [packed(b"T", b"") + packed(b"?", b"") + packed(b"T", b"")])
    assert [command for _, command in found] == [codec.Data()]
    assert error == "unknown command b'?'"


@pytest.mark.parametrize(
    ("letter", "data"),
    [
        (b"O", bytes(11)),
        (b"C", b""),
        (b"C", b"name"),
        (b"C", b"name\0004"),
        (b"C", b"name\0004\0\x19203.0.113.9"),
        (b"C", b"name\0X\0\x19somewhere\0"),
        (b"H", b""),
        (b"H", b"no end"),
        (b"H", b"one\0two\0"),
        (b"M", b""),
        (b"R", b"<a@b>"),
        (b"L", b"Name\0"),
        (b"L", b"Name\0value\0more\0"),
        (b"D", b"Mi"),
    ],
)
def test_data_that_does_not_fit_its_command_is_refused(letter, data):
    with pytest.raises(ProtocolError, match=f"{len(data)} bytes of data that do not fit it"):
        parse(letter, data)


def test_a_client_of_unknown_family_has_neither_port_nor_address():
    assert parse(b"C", b"unknown\0U") == codec.Connect(b"unknown", b"U", 0, b"")


def test_a_client_on_a_unix_socket_has_its_path():
    assert parse(b"C", b"localhost\0L\0\0/some/socket\0") == codec.Connect(
        b"localhost", b"L", 0, b"/some/socket"
    )


def test_macros_that_are_no_utf8_lose_no_byte():
    defined = parse(b"D", b"M{mail_addr}\0a\xff@b\0")
    assert isinstance(defined, codec.Define)
    assert defined.macros["{mail_addr}"].encode("utf-8", "surrogateescape") == b"a\xff@b"


def test_a_stage_without_macros_defines_none():
    assert parse(b"D", b"T") == codec.Define(b"T", {})


def test_what_a_later_version_appends_to_the_negotiation_is_passed_over():
    assert parse(b"O", SESSION[0][1] + b"\0\0\0\7more") == COMMANDS[0]
