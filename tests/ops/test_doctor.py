"""`mxweir doctor`: one line a thing, status 1 when one of them is bad."""

import json
import os
import socket
import threading
from contextlib import closing
from pathlib import Path

import pytest

from mxweir.config import load
from mxweir.domains.reader import POSTGRES
from mxweir.domains.record import FROM_COMMAND, Record
from mxweir_ops.checkup import CHECKS, sockets, tables
from mxweir_ops.checkup.finding import Host
from mxweir_ops.checkup.sockets import check as check_sockets
from mxweir_ops.cli import main
from mxweir_ops.lab.place import temporary_directory
from mxweir_policyd.relaydomains.mirror import Mirror
from mxweir_policyd.relaydomains.replica import Replica

NOGROUP = 65534


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "domains").write_text("example.org\n")
    file = tmp_path / "mxweir.toml"
    file.write_text(
        f"""state_dir = "{tmp_path}"
[policyd]
listen = ["unix:{tmp_path}/policy"]
maps = ["unix:{tmp_path}/maps"]
http = ""
[milter]
listen = "unix:{tmp_path}/milter"
http = ""
[domains]
file = "{tmp_path}/domains"
"""
    )
    return file


@pytest.fixture
def doctor(file, capsys):
    """Runs some checks; the status, and what was found by the end of the subject's name."""

    def run(*only: str, name=lambda subject: Path(subject).name):
        words = [word for name in only for word in ("--only", name)]
        status = main(["doctor", "--json", "--config", str(file), *words])
        found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return status, {name(one["subject"]): (one["state"], one["what"]) for one in found}

    return run


class Answering:
    """A server that says the same to everybody, and keeps what it was asked."""

    def __init__(self, path: Path, answer: bytes) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._answer = answer
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        client, _ = self._listener.accept()
        with client:
            client.recv(4096)
            client.sendall(self._answer)

    def close(self) -> None:
        self._thread.join(30)
        self._listener.close()


def test_each_mistake_of_the_configuration_is_bad(file, capsys):
    file.write_text('colour = "blue"\n[policyd]\ndeadline = "never"\n')
    assert main(["doctor", "--config", str(file)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == [f"bad   {file}"] * 2
    assert lines[1].startswith(f"bad   {file}:3: policyd.deadline: ")


def test_no_configuration_at_all_is_misuse(tmp_path, capsys):
    assert main(["doctor", "--config", str(tmp_path / "none.toml")]) == 2
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    "secret",
    [
        '[postgres]\ndsn = "host=db password = secret"\n',
        '[postgres]\ndsn = "postgresql://me:secret@db/mail"\n',
        '[redis]\nurl = "redis://:secret@h"\n',
        '[[milter.engine]]\ntype = "rspamd"\naddress = "inet:127.0.0.1:11334"\npassword = "secret"\n',
    ],
)
def test_a_file_with_passwords_that_all_can_read_is_bad(doctor, file, secret):
    assert doctor("configuration")[0] == 0
    with file.open("a") as more:
        more.write(secret)
    file.chmod(0o644)
    status, found = doctor("configuration")
    assert (status, found[file.name]) == (
        1,
        ("bad", "it has a password and is readable for all: chmod o-r"),
    )
    file.chmod(0o640)
    assert doctor("configuration")[0] == 0


@pytest.mark.parametrize(
    "rest",
    [
        '[postgres]\ndsn = "host=db"\n',
        '[postgres]\ndsn = "postgresql://me@db:5432/mail"\n',
        '[redis]\nurl = "redis://h"\n',
    ],
)
def test_a_file_without_a_password_may_be_read_by_all(doctor, file, rest):
    with file.open("a") as more:
        more.write(rest)
    file.chmod(0o644)
    assert doctor("configuration")[0] == 0


def test_what_this_user_may_not_see_is_told_and_the_rest_is_looked_at(file, capsys, monkeypatch):
    def refused(host):
        raise PermissionError(13, "Permission denied", "/state/domains.lmdb")

    monkeypatch.setitem(CHECKS, "configuration", refused)
    assert main(["doctor", "--config", str(file), "--only", "configuration", "--only", "domains"]) == 1
    first, second = capsys.readouterr().out.splitlines()[:2]
    assert first == "bad   /state/domains.lmdb: Permission denied; ask as root, or as the daemons' user"
    assert second == f"good  {file.parent}/domains: 1 domains"


def test_where_nobody_listens_is_told(doctor):
    status, found = doctor("sockets")
    assert status == 1
    assert set(found) == {"policy", "maps", "milter"}
    assert {what for _, what in found.values()} == {
        "cannot be asked: No such file or directory; does it run?"
    }


@pytest.mark.parametrize(
    ("answer", "finding"),
    [
        (b"action=DUNNO\n\n", ("good", "answers")),
        (b"", ("bad", "hangs up without an answer; its log says why")),
        (b"220 mail.example ESMTP\r\n", ("bad", "answers b'220 mail.example ESMTP\\r\\n'")),
    ],
)
def test_an_answer_is_looked_at(file, tmp_path, answer, finding):
    server = Answering(tmp_path / "policy", answer)
    found = next(iter(check_sockets(Host(load(file), file))))
    server.close()
    assert (found.state, found.what) == finding


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a socket away")
def test_a_socket_that_a_user_may_not_use_is_told_with_the_place_that_keeps_it_out():
    # Not below pytest's directory, which each pytest that begins shuts for others.
    with temporary_directory() as directory, socket.socket(socket.AF_UNIX) as listener:
        place, path = directory / "place", directory / "place" / "policy"
        place.mkdir(mode=0o750)
        listener.bind(str(path))
        path.chmod(0o660)
        told = sockets.kept_out("nobody", path)
        assert told == f"{place} has the mode 0750 and the owner root, group root"
        os.chown(place, -1, NOGROUP)
        assert sockets.kept_out("nobody", path).startswith(f"{path} has the mode 0660")
        os.chown(path, -1, NOGROUP)
        assert sockets.kept_out("nobody", path) == ""
        assert sockets.kept_out("nobody", directory / "none") == sockets.kept_out("no such user", path) == ""


def test_postfix_is_told_apart_from_whoever_asks(doctor, monkeypatch):
    monkeypatch.setattr(sockets, "kept_out", lambda user, path: f"{user} {path.name}")
    found = doctor("sockets", name=str)[1]
    assert [what for subject, (_, what) in found.items() if subject.startswith("Postfix")] == [
        f"may not connect: postfix {name}" for name in ("policy", "maps", "milter")
    ]


def test_bad_lines_and_a_table_that_is_not_there_are_told(doctor, tmp_path):
    Replica(tmp_path).close()
    assert doctor("domains")[1]["domains.lmdb"] == ("note", "holds no domain")
    (tmp_path / "domains.lmdb").unlink()
    (tmp_path / "domains").write_text("example.org\nno domain at all\n")
    status, found = doctor("domains")
    assert status == 1
    assert found["domains"] == ("bad", "1 bad lines, the first is line 2: more than a domain and a next hop")
    assert found["domains.lmdb"][0] == "bad"


def test_a_table_that_was_begun_anew_after_damage_is_told_until_an_operator_accepts_it(doctor, tmp_path):
    (tmp_path / "domains.unsure").touch()
    Replica(tmp_path).close()
    status, found = doctor("domains")
    assert (status, found["domains.unsure"][0]) == (1, "bad")
    (tmp_path / "domains.unsure").unlink()
    assert "domains.unsure" not in doctor("domains")[1]


@pytest.mark.parametrize(("domains", "state"), [(["example.org"], "bad"), ([], "note")])
def test_tables_of_postfixs_own_that_are_not_there_are_told(
    doctor, file, tmp_path, monkeypatch, domains, state
):
    monkeypatch.setattr(tables, "_MADE_WITHIN", 0.0)
    with file.open("a") as more:
        more.write(f'postfix_lmdb = "{tmp_path}/tables"\n')
    with closing(Replica(tmp_path)) as replica:
        replica.add([Record(domain) for domain in domains], FROM_COMMAND)
    found = doctor("domains")[1]
    assert [found[f"{name}.lmdb"][0] for name in ("relay-domains", "transport")] == [state] * 2


def test_a_table_of_postfixs_own_that_is_none_is_told(doctor, file, tmp_path):
    with file.open("a") as more:
        more.write(f'postfix_lmdb = "{tmp_path}"\n')
    for name in ("relay-domains", "transport"):
        (tmp_path / f"{name}.lmdb").write_text("no table at all")
    state, what = doctor("domains")[1]["transport.lmdb"]
    assert (state, what.partition(":")[0]) == ("bad", "cannot be read")


def test_a_replica_that_was_never_whole_is_told(doctor, file, tmp_path):
    with file.open("a") as more:
        more.write('[postgres]\ndsn = "host=db"\n')
    Mirror(tmp_path).close()
    status, found = doctor("domains")
    assert status == 1
    assert found[POSTGRES] == ("note", "holds no domain")
    assert found["the replica of PostgreSQL's table"] == (
        "bad",
        "was never whole yet: the policy daemon fills it",
    )
