import json
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from mxweir.config import load
from mxweir_ops.cli import main
from mxweir_ops.commands import config as commands
from mxweir_ops.lab.certificates import certificate
from mxweir_ops.postfix import QUEUE_DIRECTORY

WRITTEN = """\
state_dir = "/srv/mxweir"

[policyd]
listen = "unix:/var/spool/postfix/mxweir/policy"
deadline = "1500ms"

[[access]]
block = "sender_org"
value = "bulk.example"
reason = "never confirmed its \\"addresses\\" \\\\ gone"
expires = 2027-01-31T12:00:00+01:00

[[limit]]
name = "mailbox"
key = ["sender_org", "recipient"]
rate = "200/minute"
overrides = { "a.example, postmaster@example.org" = "unlimited" }

[[milter.engine]]
type = "spamd"
address = "unix:/run/spamd.sock"
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    written = tmp_path / "mxweir.toml"
    written.write_text(WRITTEN)
    return written


def printed(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    """What a command prints that ends with status 0 and says nothing else."""
    assert main(["config", *map(str, words)]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    return shown.out


def as_json(capsys: pytest.CaptureFixture[str], *words: str | Path) -> Any:
    return json.loads(printed(capsys, *words, "--json"))


# check


def test_a_good_configuration_is_called_good(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "check", "--config", path) == f"{path}: good\n"
    assert as_json(capsys, "check", "--config", path) == {"file": str(path), "mistakes": [], "warnings": []}


def test_warnings_leave_it_good(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_text("")
    first, second = printed(capsys, "check", "--config", path).splitlines()
    assert first.startswith(f"{path}: warning: milter.engine: no scanner is configured")
    assert second == f"{path}: good"
    (warning,) = as_json(capsys, "check", "--config", path)["warnings"]
    assert warning.startswith("milter.engine: ")


def test_every_mistake_is_told_with_its_line(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_text(
        WRITTEN.replace("1500ms", "soon").replace("200/minute", "lots").replace("unix:/run", "/run")
    )
    assert main(["config", "check", "--config", str(path)]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert [line.removeprefix(f"{path}:").split(":")[0] for line in told.err.splitlines()] == [
        "5",
        "16",
        "21",
    ]
    assert main(["config", "check", "--json", "--config", str(path)]) == 2
    as_data = capsys.readouterr()
    assert as_data.err == ""
    assert json.loads(as_data.out)["mistakes"] == told.err.splitlines()


def test_certificates_and_keys_that_cannot_be_read_or_used_are_all_told(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path.write_text(
        f'[redis]\nurl = "rediss://redis.example"\nca = "{tmp_path}/none.pem"\ncert = "{tmp_path}"\n'
        f'key = "{path}"\n[[milter.engine]]\ntype = "rspamd"\naddress = "inet:127.0.0.1:11333"\n'
        f'tls = true\nca = "{tmp_path}/nor-this.pem"\n'
    )
    assert main(["config", "check", "--config", str(path)]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"{path}:3: redis.ca: {tmp_path}/none.pem cannot be read: No such file or directory",
        f"{path}:4: redis.cert: {tmp_path} cannot be read: Is a directory",
        f"{path}:10: milter.engine[1].ca: {tmp_path}/nor-this.pem cannot be read: No such file or directory",
    ]
    made = certificate(tmp_path, "redis")
    good = f'[redis]\nurl = "rediss://redis.example"\nca = "{made.cert}"\ncert = "{made.cert}"\n'
    path.write_text(f'{good}key = "{path}"\n')
    assert main(["config", "check", "--config", str(path)]) == 2
    assert f"{path}: redis.cert, redis.key: " in capsys.readouterr().err
    path.write_text(f'{good}key = "{made.key}"\n')
    assert main(["config", "check", "--config", str(path)]) == 0


# show


def test_a_dsn_that_libpq_would_not_take_is_a_mistake_and_is_not_quoted(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_text('[postgres]\ndsn = "dbname=mxweir password=se cret"\n')
    assert main(["config", "check", "--config", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.strip() == f"{path}:2: postgres.dsn: no connection string as libpq takes it"
    assert main(["config", "check", "--json", "--config", str(path)]) == 2
    assert "cret" not in capsys.readouterr().out
    path.write_text('[postgres]\ndsn = "postgresql://a@b1,b2/mxweir?target_session_attrs=read-write"\n')
    assert main(["config", "check", "--config", str(path)]) == 0
    monkeypatch.setitem(sys.modules, "psycopg", None)
    path.write_text('[postgres]\ndsn = "nobody here can tell"\n')
    assert main(["config", "check", "--config", str(path)]) == 0


def test_what_is_shown_is_a_configuration_that_means_the_same(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for text in (WRITTEN, ""):
        path.write_text(text)
        shown = tmp_path / "shown.toml"
        shown.write_text(printed(capsys, "show", "--config", path))
        assert load(shown) == load(path)


def test_what_is_shown_has_the_defaults_too_and_is_the_same_as_json(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = tomllib.loads(printed(capsys, "show", "--config", path))
    assert shown["policyd"]["deadline"] == "1500ms"
    assert shown["policyd"]["max_connections"] == 4096
    assert shown["domains"]["max_shrink"] == "20%"
    assert shown["limit"][0]["refuse"] == "reject"
    data = as_json(capsys, "show", "--config", path)
    shown["access"][0]["expires"] = str(shown["access"][0]["expires"])
    assert data == shown


# postfix


def test_the_lines_for_postfix_are_printed_by_file(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "postfix", "--config", path)
    data = as_json(capsys, "postfix", "--config", path)
    assert list(data) == ["main.cf", "master.cf"]
    assert text.splitlines() == ["# --- main.cf", *data["main.cf"], "", "# --- master.cf", *data["master.cf"]]


def fake_postconf(directory: Path, line: str) -> None:
    program = directory / "postconf"
    program.write_text(f"#!/bin/sh\n{line}\n")
    program.chmod(0o755)


def test_sockets_are_named_from_the_queue_directory_of_this_hosts_postfix(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_postconf(tmp_path, 'test "$*" = "-h queue_directory" && echo /var/spool')
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "unix:postfix/mxweir/policy" in printed(capsys, "postfix", "--config", path)


@pytest.mark.parametrize("line", ["exit 1", "echo"])
def test_a_postfix_that_does_not_say_its_queue_directory_has_debians(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_postconf(tmp_path, line)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commands._queue_directory() == QUEUE_DIRECTORY
    monkeypatch.setenv("PATH", "/nonexistent")
    assert commands._queue_directory() == QUEUE_DIRECTORY
