"""SIGHUP: new limits, lists and domains without dropping a connection; a broken file changes nothing."""

from collections.abc import Iterator

import pytest

from mxweir_ops.lab import letters
from mxweir_ops.lab.asking import PolicyClient
from mxweir_ops.lab.client import Client
from mxweir_ops.lab.letters import letter
from mxweir_ops.lab.place import temporary_directory
from mxweir_ops.lab.process import wait_until
from mxweir_ops.lab.spamd import Spamd
from mxweir_ops.lab.stack import Plan, Stack

JSON_LOG = '[log]\nformat = "json"\n'


def limit(burst: int) -> str:
    return f'[[limit]]\nname = "sender"\nkey = "sender"\nrate = "10/hour"\nburst = {burst}\n' + JSON_LOG


BLOCK = '[[access]]\nblock = "sender_org"\nvalue = "bulk.example"\n' + JSON_LOG


@pytest.fixture(scope="module")
def stack(spamd: Spamd) -> Iterator[Stack]:
    with (
        temporary_directory() as directory,
        Stack(directory, Plan(engine=spamd.endpoint, rest=limit(3))) as stack,
    ):
        yield stack


def reloaded(stack: Stack, rest: str) -> None:
    """Write other rules and wait until they are in force."""
    stack.write_config(rest)
    before = len(stack.policyd.records(event="configuration reloaded"))
    stack.policyd.reload()
    assert wait_until(lambda: len(stack.policyd.records(event="configuration reloaded")) > before, 60)


def test_a_new_limit_is_in_force_at_once_on_a_connection_that_was_open_before(
    stack: Stack, sender: str
) -> None:
    reloaded(stack, limit(3))
    with PolicyClient(stack.addresses.policy) as client:
        assert client.ask(sender=sender, instance="1") == "DUNNO"
        reloaded(stack, limit(2))
        answers = [client.ask(sender=sender, instance=f"2.{number}") for number in range(2)]
    assert [answer[:5] for answer in answers] == ["DUNNO", "550 5"]


def test_what_was_used_of_a_limit_stays_used_over_a_reload(stack: Stack, sender: str) -> None:
    reloaded(stack, limit(3))
    with PolicyClient(stack.addresses.policy) as client:
        for number in range(3):
            assert client.ask(sender=sender, instance=f"1.{number}") == "DUNNO"
        reloaded(stack, limit(3))
        assert client.ask(sender=sender, instance="2").startswith("550")


def test_an_access_list_is_taken_over(stack: Stack) -> None:
    reloaded(stack, JSON_LOG)
    with PolicyClient(stack.addresses.policy) as client:
        assert client.ask(sender="a@bulk.example", instance="3") == "DUNNO"
        reloaded(stack, BLOCK)
        assert client.ask(sender="a@bulk.example", instance="4").startswith("554")


def test_a_broken_file_keeps_the_old_rules_in_force_and_every_mistake_is_logged(
    stack: Stack, sender: str
) -> None:
    reloaded(stack, limit(1))
    stack.write_config(limit(1000).replace("sender", "sendr") + "\n[polcyd]\n")
    with PolicyClient(stack.addresses.policy) as client:
        assert client.ask(sender=sender, instance="5") == "DUNNO"
        stack.policyd.reload()
        event = "configuration not reloaded"
        refused = stack.policyd.wait_for(event=event, level="error")
        assert "stays in force" in refused["detail"]
        for mistake in ("sendr", "polcyd"):
            assert wait_until(lambda word=mistake: word in str(stack.policyd.records(event=event)), 60)  # type: ignore[misc]
        assert client.ask(sender=sender, instance="6").startswith("550")
    stack.write_config()


def test_the_milter_takes_new_thresholds_for_the_next_message_of_an_open_session(
    stack: Stack, sender: str
) -> None:
    with Client(stack.port) as client:
        assert client.send(sender, ["anna@example.org"], letter(letters.GTUBE)).accepted
        text = stack.config_file.read_text()
        stack.config_file.write_text(text.replace("[milter]", "[milter]\nreject_at = 100.0", 1))
        stack.milter.reload()
        stack.milter.wait_for(event="configuration reloaded")
        assert client.send(f"x{sender}", ["anna@example.org"], letter(letters.GTUBE)).last.code == 550
    stack.write_config()


def test_the_milter_keeps_its_thresholds_when_the_new_file_is_broken(stack: Stack, sender: str) -> None:
    stack.config_file.write_text("[milter\n")
    stack.milter.reload()
    stack.milter.wait_for(event="configuration not reloaded", level="error")
    with Client(stack.port) as client:
        assert client.send(sender, ["anna@example.org"], letter()).accepted
    stack.write_config()
