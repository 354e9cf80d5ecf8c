"""The daemon's pages for monitoring: /metrics, /livez, /readyz."""

import signal
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mxweir import __version__
from mxweir_ops.lab.process import wait_until

if TYPE_CHECKING:
    from tests.policyd.conftest import Policyd


def samples(daemon: "Policyd") -> dict[str, float]:
    """All series with their values."""
    status, text = daemon.page("/metrics")
    assert status == 200
    return {
        f"{sample.name}{{{','.join(f'{name}={value}' for name, value in sorted(sample.labels.items()))}}}": (
            sample.value
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.parametrize(("path", "status"), [("/livez", 200), ("/readyz", 200), ("/", 404), ("/x", 404)])
def test_the_pages_say_that_all_is_well_and_others_are_not_there(
    policyd: "Policyd", path: str, status: int
) -> None:
    assert policyd.page(path)[0] == status


def test_a_daemon_that_stops_is_not_ready_and_still_alive(own: "Policyd") -> None:
    own.configure(drain='"60s"')
    own.start()
    with own.client() as half:
        half.send(b"request=")
        assert own.ask() == "DUNNO"
        own.child.send(signal.SIGTERM)
        assert wait_until(lambda: own.page("/readyz") == (503, "stopping\n"), 30)
        assert own.page("/livez")[0] == 200


def test_decisions_are_counted_by_check_rule_and_action(policyd: "Policyd", sender: str) -> None:
    before = samples(policyd)
    for number in range(5):
        policyd.ask(sender=sender, instance=f"{sender}.{number}")
    policyd.ask(recipient="x@foreign.example")
    policyd.ask(sender="blocked@bulk.example")
    after = samples(policyd)
    rose = {
        name: value - before.get(name, 0.0)
        for name, value in after.items()
        if name.startswith("mxweir_policy_decisions_total") and value != before.get(name)
    }
    assert rose == {
        "mxweir_policy_decisions_total{action=pass,check=,rule=}": 3.0,
        "mxweir_policy_decisions_total{action=reject,check=limits,rule=sender}": 2.0,
        "mxweir_policy_decisions_total{action=reject,check=relay,rule=unknown domain}": 1.0,
        "mxweir_policy_decisions_total{action=reject,check=access,rule=block sender}": 1.0,
    }
    counted = "mxweir_policy_answer_seconds_count{}"
    assert after[counted] - before[counted] == 7.0


def test_troubles_are_counted_by_kind(policyd: "Policyd") -> None:
    name = "mxweir_troubles_total{daemon=policyd,what=policy protocol error}"
    before = samples(policyd).get(name, 0.0)
    for _ in range(3):
        with policyd.client() as client:
            client.send(b"\n\n")
            assert client.is_closed()
    assert samples(policyd)[name] - before == 3.0


def test_connections_domains_keys_and_the_version_are_shown(policyd: "Policyd", sender: str) -> None:
    with policyd.client() as client:
        client.ask(sender=sender, instance=sender)
        shown = samples(policyd)
        assert shown["mxweir_policy_connections{}"] >= 1.0
    assert shown["mxweir_relay_domains{}"] == 3.0
    assert shown["mxweir_limit_keys{limit=sender}"] >= 1.0
    assert shown[f"mxweir_build_info{{version={__version__}}}"] == 1.0


def unique(number: int) -> bytes:
    """A request in which whatever a stranger chooses is new."""
    context = "limits" if number % 2 else ""
    return (
        f"request=smtpd_access_policy\nprotocol_state=RCPT\npolicy_context={context}\ninstance={number}\n"
        f"client_address=2001:db8:{number >> 16:x}:{number & 0xFFFF:x}::1\nhelo_name=h{number}.example\n"
        f"sender=s{number}@d{number}.example\nrecipient=r{number}@x{number % 3}.example\n\n"
    ).encode()


def test_strangers_make_no_new_series_and_no_lasting_memory(own: "Policyd") -> None:
    own.configure(max_keys="5000")
    own.config_file.write_text(own.config_file.read_text() + 'level = "warning"\n')
    own.start()

    def storm(numbers: range) -> None:
        with own.client() as client:
            for first in numbers[::200]:
                client.send(b"".join(map(unique, range(first, first + 200))))
                for _ in range(200):
                    client.answer()

    storm(range(10_000))
    series, memory = set(samples(own)), own.resident()
    storm(range(10_000, 30_000))
    assert set(samples(own)) == series
    assert own.resident() < memory + 15_000_000
    assert samples(own)["mxweir_limit_keys{limit=sender}"] <= 5_000
