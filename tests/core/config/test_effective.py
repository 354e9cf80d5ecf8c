import tomllib
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from mxweir.config import Config, ConfigError, load, loads
from mxweir.config.effective import effective, to_toml
from mxweir.config.schema import REQUIRED, declared

SHIPPED = Path(__file__).parents[3] / "conf/mxweir.toml"

RULES = """
[milter]
reject_at = 12

[[milter.engine]]
type = "spamd"
address = "unix:/run/spamd.sock"

[[access]]
block = "sender_org"
value = "bulk.example"
reason = 'a "quoted" reason with a \\ and é'
expires = 2027-01-31T12:00:00Z

[[limit]]
name = "pair"
key = ["sender_org", "recipient"]
rate = "3/10 minutes"
overrides = { "example.org, bob@example.net" = "unlimited", 'x.example, "q s"@c.example' = "5/day" }
"""


def test_every_key_that_has_a_default_is_shown():
    shown = effective("")
    for name, field in declared(Config).items():
        if table := field.metadata.get("table"):
            keys = declared(table)
            inner = {key for key, each in keys.items() if "written" not in each.metadata}
            without = {key for key, each in keys.items() if each.metadata.get("written") in (None, REQUIRED)}
            assert (
                (set(shown[name]) - inner == set(keys) - without - inner)
                if name in shown
                else not field.default
            )
    assert shown["policyd"]["deadline"] == "250ms"
    assert shown["milter"]["quarantine_at"] == "never"


def test_what_is_shown_says_the_same_again():
    for text in ("", RULES, SHIPPED.read_text()):
        shown = to_toml(effective(text))
        assert loads(shown) == loads(text)
        assert to_toml(effective(shown)) == shown


def test_written_values_are_shown_and_not_the_defaults():
    shown = effective(RULES)
    assert shown["milter"]["reject_at"] == 12
    assert shown["milter"]["tag_at"] == 5.0
    assert shown["limit"][0]["rate"] == "3/10 minutes"
    assert shown["limit"][0]["mode"] == "enforce"


def test_what_is_absent_by_default_is_left_out():
    shown = effective("")
    assert "redis" not in shown
    assert "postgres" not in shown


def test_secrets_are_masked():
    shown = to_toml(
        effective(
            '[redis]\nurl = "redis://:hunter2@127.0.0.1/0"\n'
            '[postgres]\ndsn = "postgresql://mxweir:hunter2@127.0.0.1/mxweir"\n'
        )
    )
    assert tomllib.loads(shown)["redis"]["url"] == "(secret)"
    assert tomllib.loads(shown)["postgres"]["dsn"] == "(secret)"
    assert "hunter2" not in shown


@given(st.text(max_size=20), st.text(max_size=20))
def test_whatever_an_operator_may_write_is_shown_so_that_it_reads_the_same(reason, value):
    text = to_toml({"access": [{"block": "helo", "value": value, "reason": reason}]})
    try:
        config = loads(text)
    except ConfigError:
        return  # not printable, or empty
    assert (config.access[0].reason, config.access[0].value) == (reason, value)
    assert loads(to_toml(effective(text))) == config


def test_the_shipped_configuration_is_shown_as_it_is_written():
    assert load(SHIPPED) == loads(to_toml(effective(SHIPPED.read_text())))


def test_each_limit_says_which_daemon_asks_it():
    limit = '[[limit]]\nname = "n{}"\nkey = {}\nrate = "5/day"\ndistinct = "{}"\n'
    kinds = [
        ('"sender"', ""),
        ('["recipient", "from_org"]', ""),
        ('"sender_org"', "reply_to"),
        ('"from"', "helo"),
    ]
    text = "".join(limit.format(number, *kind) for number, kind in enumerate(kinds))
    shown = to_toml(effective(text))
    said = [line for line in shown.splitlines() if line.startswith("# asked by")]
    assert said == ["# asked by the policy daemon", *["# asked by the milter"] * 3]
    assert loads(shown) == loads(text)
