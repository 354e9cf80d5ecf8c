"""The hostile engines do what their manners say: a test that counts on one must not find a tame one."""

import contextlib
import random
import socket
import time

import pytest

from mxweir.endpoint import Unix
from mxweir_ops.lab.hostile import HostileEngine, Manner
from mxweir_ops.lab.place import connect, free_endpoint
from mxweir_ops.lab.process import LabError, wait_until

REQUESTS = {
    "spamd": b"SYMBOLS SPAMC/1.5\r\nContent-length: 6\r\n\r\nHello\n",
    "rspamd": b"POST /checkv2 HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nHello\n",
}

BOTH = pytest.mark.parametrize("protocol", ["spamd", "rspamd"])


@pytest.fixture(params=["unix", "inet"])
def endpoint(request, tmp_path):
    return Unix(str(tmp_path / "engine")) if request.param == "unix" else free_endpoint()


def ask(engine, protocol, seconds=60.0):
    """What the engine says until it closes the connection or is silent for that long."""
    said = b""
    with connect(engine.endpoint, seconds) as client, contextlib.suppress(OSError):
        client.sendall(REQUESTS[protocol])
        client.shutdown(socket.SHUT_WR)
        while len(said) < 10**6 and (piece := client.recv(65536)):
            said += piece
    return said


@BOTH
def test_a_prompt_one_gives_the_score_it_is_told_to(endpoint, protocol):
    with HostileEngine(protocol, endpoint, score=7.5) as engine:
        first = ask(engine, protocol)
        engine.settings.score = 20
        second = ask(engine, protocol)
    assert b"7.5" in first
    assert b"BAYES_00" in first
    assert b"20" in second
    assert (engine.connections, engine.requests, engine.answers) == (2, 2, 2)


@BOTH
@pytest.mark.parametrize("manner", [Manner.CLOSING, Manner.RESETTING, Manner.CUT])
def test_those_that_break_off_give_no_whole_answer(endpoint, protocol, manner):
    with HostileEngine(protocol, endpoint, manner) as engine:
        said = ask(engine, protocol)
        engine.manner = Manner.PROMPT
        assert len(said) < len(ask(engine, protocol))
    assert engine.answers == 1


@BOTH
@pytest.mark.parametrize("manner", [Manner.SILENT, Manner.DEAF])
def test_the_silent_accept_and_say_nothing_until_the_other_side_gives_up(endpoint, protocol, manner):
    with HostileEngine(protocol, endpoint, manner, patience=0.3) as engine:
        assert ask(engine, protocol, 0.05) == b""
        assert wait_until(lambda: engine.connections == 1, 60)
        assert wait_until(lambda: engine.open == 0, 60)


@BOTH
def test_one_that_drips_has_said_a_byte_and_no_more(endpoint, protocol):
    with HostileEngine(protocol, endpoint, Manner.DRIP) as engine, connect(engine.endpoint) as client:
        client.sendall(REQUESTS[protocol])
        assert len(client.recv(100)) == 1


@BOTH
def test_an_endless_one_goes_on_as_long_as_it_is_read(endpoint, protocol):
    with HostileEngine(protocol, endpoint, Manner.ENDLESS) as engine:
        assert len(ask(engine, protocol)) >= 10**6


@BOTH
@pytest.mark.parametrize(("manner", "error"), [(Manner.TOO_SHORT, -5), (Manner.TOO_LONG, 1000)])
def test_those_that_cannot_count_announce_another_length_than_they_send(endpoint, protocol, manner, error):
    with HostileEngine(protocol, endpoint, manner, patience=0.1) as engine:
        head, _, body = ask(engine, protocol).partition(b"\r\n\r\n")
    (length,) = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    assert int(length.split(b":")[1]) == len(body) + error


@BOTH
def test_an_answer_may_lack_its_score_or_have_none_that_is_a_number(endpoint, protocol):
    with HostileEngine(protocol, endpoint, Manner.NO_SCORE) as engine:
        assert b"0.1" not in ask(engine, protocol).partition(b"symbols")[0]
        engine.manner = Manner.NAN
        assert b"nan" in ask(engine, protocol).lower()
    assert engine.answers == 0


@BOTH
def test_a_slow_one_answers_rightly_after_its_time(endpoint, protocol):
    with HostileEngine(protocol, endpoint, Manner.SLOW, seconds=0.2) as engine:
        began = time.monotonic()
        assert b"0.1" in ask(engine, protocol)
        assert time.monotonic() - began >= 0.2


def test_one_that_does_not_accept_lets_nobody_in_and_is_itself_again_afterwards(endpoint):
    with HostileEngine("spamd", endpoint, Manner.NOT_ACCEPTING) as engine:
        with pytest.raises(OSError):  # noqa: PT011 - a timeout on TCP, EAGAIN on a unix socket
            connect(engine.endpoint, 0.2)
        assert engine.connections == 0
        engine.manner = Manner.PROMPT
        assert b"EX_OK" in ask(engine, "spamd")
    # The connection that was given up may still be in TCP's queue; the engine's own are not counted.
    assert engine.answers == 1


def test_a_switch_by_lot_comes_out_the_same_for_the_same_seed(tmp_path):
    with HostileEngine("spamd", Unix(str(tmp_path / "engine"))) as engine:
        once, again = (
            [engine.switch(lot) for _ in range(40)] for lot in (random.Random(7), random.Random(7))
        )
    assert once == again
    assert len(set(once)) > 10


def test_a_connection_keeps_the_manner_it_began_with(tmp_path):
    silent = HostileEngine("spamd", Unix(str(tmp_path / "engine")), Manner.SILENT)
    with silent as engine, connect(engine.endpoint, 0.3) as client:
        client.sendall(REQUESTS["spamd"])
        assert wait_until(lambda: engine.requests == 1, 60)
        engine.manner = Manner.PROMPT
        assert b"EX_OK" in ask(engine, "spamd")
        with pytest.raises(TimeoutError):
            client.recv(1)


def test_an_address_that_is_taken_is_told_in_one_line(tmp_path):
    endpoint = Unix(str(tmp_path / "engine"))
    with HostileEngine("spamd", endpoint), pytest.raises(LabError, match=r"cannot listen at unix:.*in use"):
        HostileEngine("spamd", endpoint).start()
