import ipaddress
import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxweir.config import Config, ConfigError, load, loads
from mxweir.endpoint import Inet, Unix
from mxweir.ratelimit.rate import Rate

WHOLE = """
state_dir = "/srv/mxweir"

[policyd]
listen = "inet:127.0.0.1:10040"
maps = []
socket_mode = "660"
http = ""
deadline = "0.5s"
drain = "0s"
save_every = "1d"

[milter]
listen = "inet:[::1]:10041"
max_scan_size = "1.5MiB"
tag_at = 4
quarantine_at = 8.5
skip = []

[[milter.engine]]
type = "spamd"
address = "unix:/run/spamd.sock"

[domains]
max_shrink = "12.5%"

[keys]
recipient_delimiter = "+-"
mynetworks = ["192.0.2.0/24", "2001:db8::/32"]

[[access]]
allow = "client_network"
value = "192.0.2.0/24"

[[access]]
block = "sender_org"
value = "bulk.example"
reason = "bulk"
expires = 2027-01-31T12:00:00+02:00

[[limit]]
name = "pair"
key = ["sender_org", "recipient"]
rate = "3/10 minutes"

[[limit]]
name = "mailbox"
key = "recipient"
rate = "200/minute"
burst = 400
overrides = { "postmaster@example.org" = "2000/minute", "noc@example.org" = "unlimited" }

[log]
decisions = "5/second"
"""


def told(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        loads(text, "x")
    return str(caught.value)


def test_an_empty_file_is_the_default_configuration():
    config = loads("")
    assert config.state_dir == Config().state_dir
    assert config.policyd == Config().policyd
    assert config.policyd.listen == (Unix("/var/spool/postfix/mxweir/policy"),)
    assert (config.policyd.socket_mode, config.policyd.deadline) == (0o660, 0.25)
    assert config.domains.max_shrink == 0.2
    assert config.milter.reject_at == math.inf
    assert config.log.decisions == Rate(1000, 1.0)


def test_every_value_is_read_in_its_own_unit():
    config = loads(WHOLE)
    assert config.state_dir == Path("/srv/mxweir")
    assert config.policyd.listen == (Inet("127.0.0.1", 10040),)
    assert config.policyd.maps == ()
    assert config.policyd.socket_mode == 0o660
    assert config.policyd.http is None
    assert (config.policyd.deadline, config.policyd.drain, config.policyd.save_every) == (0.5, 0.0, 86400.0)
    assert config.milter.listen == Inet("::1", 10041)
    assert config.milter.max_scan_size == 1_572_864
    assert (config.milter.tag_at, config.milter.quarantine_at) == (4.0, 8.5)
    assert config.milter.skip == ()
    assert [engine.address for engine in config.milter.engine] == [(Unix("/run/spamd.sock"),)]
    assert config.domains.max_shrink == 0.125
    assert config.keys.mynetworks == (
        ipaddress.ip_network("192.0.2.0/24"),
        ipaddress.ip_network("2001:db8::/32"),
    )
    assert config.access[1].expires == 1_801_389_600.0
    assert config.limit[0].key == ("sender_org", "recipient")
    assert config.limit[0].rate == Rate(3, 600.0)
    assert config.limit[1].overrides == {
        "postmaster@example.org": Rate(2000, 60.0),
        "noc@example.org": None,
    }


def test_a_time_without_an_offset_is_taken_as_utc():
    written = '[[access]]\nblock = "sender"\nvalue = "a@example.org"\nexpires = '
    utc, local = (loads(written + time).access[0] for time in ("2027-01-31T12:00:00Z", "2027-01-31T12:00:00"))
    assert utc == local


def test_what_a_file_says_is_what_its_text_says(tmp_path):
    path = tmp_path / "mxweir.toml"
    path.write_text(WHOLE)
    assert load(path) == loads(WHOLE)


def test_a_file_that_is_not_there_is_told_by_its_name(tmp_path):
    path = tmp_path / "mxweir.toml"
    with pytest.raises(ConfigError, match=r"^.*/mxweir.toml: cannot be read: No such file or directory$"):
        load(path)


def test_a_directory_is_no_configuration(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path)


def test_a_file_of_unreasonable_size_is_refused_unread(tmp_path):
    path = tmp_path / "mxweir.toml"
    path.touch()
    os.truncate(path, 2**40)
    with pytest.raises(ConfigError, match="larger than 16 MiB"):
        load(path)


def outcome(text: str) -> Config | ConfigError:
    try:
        return loads(text)
    except ConfigError as error:
        return error


@given(st.text() | st.text('[]="#.,{}\n abk1\xe9\t').map("[policyd]\n".__add__))
def test_whatever_a_file_holds_it_is_a_configuration_or_an_error_with_its_reasons(text):
    found = outcome(text)
    assert isinstance(found, Config) or all(problem.what for problem in found.problems)


def quoted(text: str) -> str:
    """A TOML string, every character written by its number."""
    return '"' + "".join(f"\\U{ord(c):08x}" for c in text if not "\ud800" <= c <= "\udfff") + '"'


ANYTHING = st.text(max_size=30) | st.from_regex(r"[0-9.]{1,400} ?(ms|s|m|h|d|KiB|GB|%|/day|/9+ weeks)")


@given(ANYTHING.map(quoted))
def test_whatever_a_value_is_its_mistake_is_told_in_lines(value):
    found = outcome(
        f"[policyd]\ndeadline={value}\nlisten={value}\nsocket_mode={value}\nhttp={value}\n"
        f"[milter]\nmax_scan_size={value}\n[domains]\nfile={value}\nmax_shrink={value}\n"
        f"[keys]\nmynetworks=[{value}]\nrecipient_delimiter={value}\n"
        f"[[limit]]\nname={value}\nkey={value}\nrate={value}\noverrides={{{value}={value}}}\n"
        f'[[access]]\nblock="client_network"\nvalue={value}\n[[access]]\nblock="sender_org"\nvalue={value}\n'
        f'[[limit]]\nname="x"\nkey="sender"\nrate="1/day"\noverrides={{{value}="1/day"}}\n{value} = 1\n'
    )
    assert isinstance(found, ConfigError)
    assert all(line.isprintable() for line in found.lines())


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "[::1]", "localhost"])
def test_the_pages_are_served_on_the_loopback_alone_by_whichever_name(host):
    assert str(loads(f'[policyd]\nhttp = "inet:{host}:10042"\n').policyd.http) == f"inet:{host}:10042"
    for elsewhere in ("0.0.0.0", "[::]", "192.0.2.1", "example.org", "localhost.example.org"):
        assert "is not on the loopback" in told(f'[policyd]\nhttp = "inet:{elsewhere}:10042"\n')


def test_a_milter_without_a_scanner_is_warned_of():
    warned = "milter.engine: no scanner is configured; the milter marks all mail unscanned"
    assert loads("").warnings == (warned,)


def test_a_recipient_key_at_end_of_data_is_warned_of():
    config = loads(
        '[[milter.engine]]\ntype = "spamd"\naddress = "inet:127.0.0.1:783"\n'
        '[[limit]]\nname = "bytes"\nkey = ["sender", "recipient"]\nrate = "1GB/day"\nunit = "byte"\n'
    )
    warned = "limit[1].key: Postfix names the recipient at end of data only when there is one; "
    assert config.warnings == (warned + 'limit "bytes" passes over mail to several',)


def test_a_value_that_differs_in_case_or_spelling_alone_is_no_mistake():
    loads(
        '[[access]]\nblock = "sender"\nvalue = "Bob@Example.ORG"\n'
        '[[access]]\nblock = "sender"\nvalue = "<>"\n'
        '[[access]]\nblock = "sender_org"\nvalue = "Bücher.example"\n'
        '[[access]]\nblock = "recipient"\nvalue = "info@bücher.example"\n'
        '[[access]]\nblock = "client_address"\nvalue = "2001:DB8::1"\n'
        '[[access]]\nblock = "client_network"\nvalue = "2001:DB8::/32"\n'
        '[[limit]]\nname = "x"\nkey = "client_network"\nrate = "1/day"\n'
        'overrides = { "192.0.2.0/24" = "2/day", "2001:DB8::/64" = "2/day" }\n'
    )


def test_overrides_are_checked_by_the_prefixes_of_this_very_file():
    rule = '[[limit]]\nname = "x"\nkey = "client_network"\nrate = "1/day"\n'
    rule += 'overrides = { "192.0.2.0/28" = "2/day" }\n'
    loads("[keys]\nipv4_prefix = 28\n" + rule)
    assert 'write "192.0.2.0/24"' in told(rule)


@pytest.mark.parametrize("text", ["x = " + "[" * 5000 + "]" * 5000, "x = " + "1" * 5000])
def test_what_the_toml_parser_stumbles_over_is_a_mistake_like_any_other(text: str) -> None:
    with pytest.raises(ConfigError, match="not valid TOML"):
        loads(text)
