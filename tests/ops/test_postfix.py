import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxweir.config import Config, loads
from mxweir.endpoint import Endpoint, Inet, Unix
from mxweir_ops.postfix import as_postfix_writes, main_cf, master_cf

BY_MESSAGE = '[[limit]]\nname = "{unit}"\nkey = "sender"\nrate = "5/hour"\nunit = "{unit}"\n'


def parameters(config: Config) -> dict[str, str]:
    """The settings of main.cf, continued lines joined, comments left out."""
    lines = [line for line in main_cf(config) if line and not line.startswith("#")]
    found: dict[str, str] = {}
    name = ""
    for line in lines:
        if line.startswith(" "):
            found[name] += f" {line.strip()}"
        else:
            name, _, value = (part.strip() for part in line.partition("="))
            found[name] = value
    return found


def services(value: str) -> list[dict[str, str]]:
    """The policy services or milters of a setting, each with its address and its own settings."""
    found = []
    for inside in re.findall(r"\{ (.*?) \}", value.replace("{", "{ ").replace("}", " }").replace("  ", " ")):
        address, *settings = inside.split(", ")
        found.append({"address": address} | dict(setting.split("=", 1) for setting in settings))
    return found


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


def test_the_relay_restrictions_end_in_defer_unauth_destination_behind_our_check() -> None:
    words = parameters(loads(""))["smtpd_relay_restrictions"].split(",")
    assert words[-1].strip() == "defer_unauth_destination"
    assert [word.strip() for word in words[:2]] == ["permit_mynetworks", "permit_sasl_authenticated"]


TABLES = '[domains]\npostfix_lmdb = "/var/lib/mxweir/postfix"\n'


def test_tables_of_postfix_s_own_are_printed_where_they_are_kept() -> None:
    found = parameters(loads(TABLES))
    assert found["relay_domains"] == "lmdb:/var/lib/mxweir/postfix/relay-domains"
    assert found["transport_maps"] == "lmdb:/var/lib/mxweir/postfix/transport"


def test_with_tables_no_domain_stands_for_what_is_below_it_unless_it_says_so() -> None:
    usual = "debug_peer_list fast_flush_domains mynetworks permit_mx_backup_networks qmqpd_authorized_clients"
    matching = parameters(loads(TABLES))["parent_domain_matches_subdomains"].split(", ")
    assert matching == [*usual.split(), "smtpd_access_maps"]


def test_without_tables_postfix_asks_the_map_server_and_the_danger_is_told() -> None:
    found = parameters(loads(""))
    assert found["relay_domains"] == "socketmap:unix:mxweir/maps:relay-domains"
    assert found["transport_maps"] == "socketmap:unix:mxweir/maps:transport"
    assert "parent_domain_matches_subdomains" not in found
    assert any("while it is stopped, all" in line for line in main_cf(loads("")))


def test_with_neither_relay_domains_is_left_to_the_site() -> None:
    found = parameters(loads("[policyd]\nmaps = []\n"))
    assert "relay_domains" not in found
    assert "transport_maps" not in found


def test_no_line_can_answer_ok_and_each_question_falls_back_to_dunno_and_is_tried_twice() -> None:
    found = parameters(loads(BY_MESSAGE.format(unit="byte")))
    restrictions = [value for name, value in found.items() if name.endswith("_restrictions")]
    assert len(restrictions) == 3
    for value in restrictions:
        assert not re.search(r"\b(OK|permit)\b", value)
        (service,) = services(value)
        assert (service["default_action"], service["try_limit"]) == ("DUNNO", "2")


def test_each_place_has_its_context() -> None:
    found = parameters(loads(BY_MESSAGE.format(unit="byte")))
    contexts = {
        name: services(value)[0]["policy_context"]
        for name, value in found.items()
        if name.endswith("_restrictions")
    }
    assert contexts == {
        "smtpd_relay_restrictions": "relay",
        "smtpd_recipient_restrictions": "limits",
        "smtpd_end_of_data_restrictions": "message",
    }


@pytest.mark.parametrize(
    ("config", "asked"),
    [
        ("", False),
        (BY_MESSAGE.format(unit="recipient"), False),
        (BY_MESSAGE.format(unit="byte"), True),
        (BY_MESSAGE.format(unit="message"), True),
        (BY_MESSAGE.format(unit="recipient") + BY_MESSAGE.format(unit="message"), True),
    ],
    ids=["no limit", "recipients", "bytes", "messages", "recipients and messages"],
)
def test_the_end_of_data_is_asked_about_only_when_a_limit_counts_bytes_or_messages(
    config: str, asked: bool
) -> None:
    assert ("smtpd_end_of_data_restrictions" in parameters(loads(config))) == asked


@given(st.integers(10, 30_000), st.integers(100, 240_000))
def test_postfix_always_waits_longer_than_our_deadlines(policy: int, milter: int) -> None:
    config = loads(f'[policyd]\ndeadline = "{policy}ms"\n[milter]\ndeadline = "{milter}ms"\n')
    found = parameters(config)
    for name in ("smtpd_relay_restrictions", "smtpd_recipient_restrictions"):
        assert seconds(services(found[name])[0]["timeout"]) >= config.policyd.deadline + 1.0
    (service,) = services(found["smtpd_milters"])
    assert seconds(service["content_timeout"]) >= config.milter.deadline + 5.0


def test_a_milter_that_is_gone_stops_no_mail_and_gets_the_macros_that_it_reads() -> None:
    found = parameters(loads(""))
    (service,) = services(found["smtpd_milters"])
    assert service["default_action"] == "accept"
    assert {"i", "{client_addr}", "{auth_authen}"} <= set(found["milter_mail_macros"].split())


@pytest.mark.parametrize(
    ("endpoint", "written"),
    [
        (Unix("/var/spool/postfix/mxweir/policy"), "unix:mxweir/policy"),
        (Unix("/run/mxweir/policy"), "unix:/run/mxweir/policy"),
        (Unix("/var/spool/postfix2/policy"), "unix:/var/spool/postfix2/policy"),
        (Inet("127.0.0.1", 10040), "inet:127.0.0.1:10040"),
        (Inet("::1", 10040), "inet:[::1]:10040"),
    ],
)
def test_a_socket_in_the_queue_directory_is_named_from_there(endpoint: Endpoint, written: str) -> None:
    assert as_postfix_writes(endpoint, "/var/spool/postfix") == written


def test_the_addresses_are_those_of_the_configuration() -> None:
    config = loads(
        '[policyd]\nlisten = ["inet:127.0.0.1:10040", "unix:/run/x"]\n[milter]\nlisten = "inet:[::1]:10041"\n'
    )
    found = parameters(config)
    assert services(found["smtpd_relay_restrictions"])[0]["address"] == "inet:127.0.0.1:10040"
    assert services(found["smtpd_milters"])[0]["address"] == "inet:[::1]:10041"


def test_master_cf_needs_no_active_line() -> None:
    assert all(line.startswith("#") for line in master_cf())
