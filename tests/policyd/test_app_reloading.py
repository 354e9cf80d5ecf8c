"""What a running daemon takes over: a new configuration on SIGHUP, a new domains file by itself."""

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from mxweir_ops.lab.daemons import command
from mxweir_ops.lab.process import wait_until

if TYPE_CHECKING:
    from tests.policyd.conftest import Policyd

SOON = 30.0
"""Seconds in which the daemon notices a file, on a busy machine."""

TIGHTER = '[[limit]]\nname = "sender"\nkey = "sender"\nrate = "1/day"\n'


def ours(daemon: "Policyd", domain: str) -> bool:
    return daemon.ask(recipient=f"anna@{domain}", policy_context="relay") == "DUNNO"


def reload(daemon: "Policyd", event: str = "configuration reloaded") -> None:
    """Tell it to read its configuration, and wait until it says what came of it."""
    before = len(daemon.records(event=event))
    daemon.reload()
    assert wait_until(lambda: len(daemon.records(event=event)) > before, SOON)


def mxweir(daemon: "Policyd", *words: str) -> subprocess.CompletedProcess[str]:
    verb, *rest = words
    argv = command(verb, daemon.config_file, *rest)
    return subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60)


def test_a_reload_takes_new_limits_and_entries_and_drops_no_connection(own: "Policyd") -> None:
    own.start()
    with own.client() as client:
        assert client.ask(sender="bert@a.example", instance="1") == "DUNNO"
        assert client.ask(sender="blocked@bulk.example").startswith("554")
        own.configure(TIGHTER)
        reload(own)
        assert client.ask(sender="bert@a.example", instance="2").startswith("550 5.7.1")
        assert client.ask(sender="blocked@bulk.example", instance="3") == "DUNNO"


def test_a_broken_new_file_keeps_the_one_in_force_and_says_why(own: "Policyd") -> None:
    own.start()
    with own.client() as client:
        own.config_file.write_text(own.config_file.read_text().replace("3/day", "3/year"))
        own.reload()
        line = own.wait_for(event="configuration not reloaded", level="error")
        assert line["detail"] == "the former one stays in force"
        told = [line.get("why", "") for line in own.records(event="configuration not reloaded")]
        assert any("limit[1].rate: '3/year' is not a rate" in why for why in told)
        answers = [client.ask(sender="bert@a.example", instance=str(number))[:3] for number in range(4)]
        assert answers == ["DUN", "DUN", "DUN", "550"]
        assert client.ask(sender="blocked@bulk.example").startswith("554")
        own.configure(TIGHTER)
        reload(own)
        assert client.ask(sender="blocked@bulk.example", instance="9") == "DUNNO"


@pytest.mark.parametrize("spoil", ["vanished", "a directory", "not UTF-8", "not TOML"])
def test_a_file_that_cannot_be_read_keeps_the_one_in_force(own: "Policyd", spoil: str) -> None:
    own.start()
    own.config_file.unlink()
    if spoil == "a directory":
        own.config_file.mkdir()
    elif spoil != "vanished":
        own.config_file.write_bytes(b"\xff" if spoil == "not UTF-8" else b"[policyd\n")
    own.reload()
    assert own.wait_for(event="configuration not reloaded", level="error")
    assert own.ask(sender="blocked@bulk.example").startswith("554")


def test_many_reloads_in_a_row_lose_nothing(own: "Policyd") -> None:
    own.start()
    with own.client() as client:
        for number in range(10):
            own.reload()
            client.ask(sender="bert@a.example", instance=str(number))
        assert client.ask(sender="bert@a.example", instance="last").startswith("550")
    assert wait_until(lambda: bool(own.records(event="configuration reloaded")), SOON)
    assert own.page("/readyz")[0] == 200


def test_what_a_reload_cannot_change_is_named_and_goes_on_as_it_was(own: "Policyd") -> None:
    own.start()
    own.configure(max_connections="7", save_every='"1h"')
    reload(own)
    assert own.wait_for(event="needs a restart to take effect")["keys"] == (
        "policyd.max_connections policyd.save_every"
    )
    assert own.ask() == "DUNNO"


def test_an_edited_domains_file_is_taken_within_seconds(own: "Policyd") -> None:
    own.start()
    assert ours(own, "example.org")
    assert not ours(own, "new.example")
    own.domains.write_text(own.domains.read_text() + "new.example\n")
    assert wait_until(lambda: ours(own, "new.example"), SOON)
    assert ours(own, "example.org")
    assert own.look_up("relay-domains", "new.example") == "OK new.example"


def test_a_domains_file_replaced_by_another_is_taken_and_its_bad_lines_are_told(own: "Policyd") -> None:
    own.start()
    new = own.directory / "new"
    new.write_text(own.domains.read_text() + "rubbish!\nnew.example\n")
    new.rename(own.domains)
    assert wait_until(lambda: ours(own, "new.example"), SOON)
    assert own.wait_for(event="domains file: line skipped")["line"] == 4


def test_a_domain_given_by_command_is_ours_at_once_and_gone_within_seconds(own: "Policyd") -> None:
    own.start()
    assert mxweir(own, "domains", "add", "new.example").returncode == 0
    assert ours(own, "new.example")
    assert mxweir(own, "domains", "remove", "new.example").returncode == 0
    assert wait_until(lambda: not ours(own, "new.example"), SOON)


def test_a_file_that_lost_most_of_its_lines_is_refused_until_it_is_accepted(own: "Policyd") -> None:
    own.start()
    new = own.directory / "new"
    new.write_text("example.org\n")
    new.rename(own.domains)  # written in place, it is empty for an instant
    line = own.wait_for(event="domains file refused", level="error")
    assert "2 of 3 domains would go, more than max_shrink = 20% allows" in line["detail"]
    assert ours(own, "example.net")
    assert mxweir(own, "domains", "verify").returncode == 1
    accepted = mxweir(own, "domains", "verify", "--accept")
    assert (accepted.returncode, "1 in the table" in accepted.stdout) == (0, True)
    assert wait_until(lambda: not ours(own, "example.net"), SOON)
    assert ours(own, "example.org")
    assert mxweir(own, "domains", "verify").returncode == 0


def test_a_domains_file_that_vanishes_changes_nothing(own: "Policyd") -> None:
    own.start()
    own.domains.unlink()
    assert own.wait_for(event="domains file not there")
    assert ours(own, "example.org")
    assert not ours(own, "foreign.example")


@pytest.mark.parametrize("restored", [True, False])
def test_a_table_that_is_removed_or_restored_under_the_daemon_is_taken_and_changed_by_commands(
    own: "Policyd", restored: bool
) -> None:
    table = own.state / "domains.lmdb"
    own.start()
    if restored:
        shutil.copy(table, own.state / "backup")
        own.domains.write_text(own.domains.read_text() + "since.example\n")
        assert wait_until(lambda: ours(own, "since.example"), SOON)
        (own.state / "backup").rename(table)
    else:
        table.unlink()
        assert wait_until(table.exists, SOON)
    own.wait_for(event="domain table replaced")
    assert mxweir(own, "domains", "add", "added.example").returncode == 0
    known = ("example.org", "added.example", *(["since.example"] if restored else []))
    assert all(ours(own, domain) for domain in known)
    assert not ours(own, "foreign.example")
    assert len(own.records(event="domain table replaced")) == 1


def test_a_damaged_table_is_made_anew_from_the_file_at_the_next_start(own: "Policyd") -> None:
    own.domains.write_text("".join(f"d{number}.example\n" for number in range(3000)))
    own.start()
    own.stop()
    table = own.state / "domains.lmdb"
    spoiled = bytearray(table.read_bytes())
    spoiled[20 * 4096 : 21 * 4096] = bytes(4096)
    table.write_bytes(spoiled)
    own.start()
    line = own.wait_for(event="domain table damaged", level="error")
    assert str(own.state / "domains.broken") in line["detail"]
    assert all(ours(own, f"d{number}.example") for number in range(0, 3000, 100))
    assert not ours(own, "foreign.example")
