import http.client
import json
import socket

import pytest

from mxweir.endpoint import Unix
from mxweir_ops.lab.place import connect, free_port, temporary_directory
from mxweir_ops.lab.rspamd import PASSWORD, Rspamd

GTUBE = b"Subject: x\r\n\r\nXJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X\r\n"
HAM = b"Subject: x\r\n\r\nGood morning\r\n"


def check(endpoint, message, **headers):
    """Status and answer of /checkv2."""
    client = http.client.HTTPConnection("localhost")
    client.sock = connect(endpoint, 60)
    try:
        client.request("POST", "/checkv2", message, headers)
        response = client.getresponse()
        return response.status, json.loads(response.read())
    finally:
        client.close()


def test_it_tells_spam_from_ham_by_the_shipped_rules(rspamd):
    status, spam = check(rspamd.endpoint, GTUBE)
    _, ham = check(rspamd.endpoint, HAM)
    assert (status, spam["action"]) == (200, "reject")
    assert "GTUBE" in spam["symbols"]
    assert "MISSING_DATE" in ham["symbols"]
    assert ham["score"] < spam["score"]


def test_one_of_its_doors_wants_the_password(rspamd):
    assert check(rspamd.guarded, HAM)[0] == 401
    assert check(rspamd.guarded, HAM, Password=PASSWORD)[0] == 200


def test_its_milter_accepts_connections(rspamd):
    connect(rspamd.milter, 60).close()


def test_rules_of_a_test_go_over_the_shipped_ones_and_it_serves_on_a_port():
    rules = "actions { reject = 9; add_header = 8; greylist = null; rewrite_subject = null; }"
    with temporary_directory() as directory, Rspamd(directory, rules, port=free_port()) as rspamd:
        assert not isinstance(rspamd.endpoint, Unix)
        assert check(rspamd.endpoint, GTUBE)[1]["score"] == 9
        rspamd.freeze()
        with connect(rspamd.endpoint, 0.2) as client:
            client.sendall(b"GET /ping HTTP/1.0\r\n\r\n")
            with pytest.raises(TimeoutError):
                client.recv(1)
            rspamd.thaw()
            client.settimeout(60)
            assert client.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 200"
    assert not rspamd.answers()
