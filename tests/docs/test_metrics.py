"""The page of metrics, against what the daemons serve."""

import re
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from mxweir.config import load
from mxweir.endpoint import Inet
from mxweir_milter.verdict import Outcome, Reason
from mxweir_ops.lab.daemons import Addresses, Daemon, Setup, get
from mxweir_ops.lab.place import temporary_directory


@pytest.fixture(scope="module")
def config_file() -> Iterator[Path]:
    with temporary_directory() as directory:
        (directory / "state").mkdir()
        (directory / "domains").write_text("example.org\n")
        limit = '[[limit]]\nname = "sender"\nkey = "sender"\nrate = "10/hour"\n'
        setup = Setup(
            addresses=Addresses.in_directory(directory),
            state_dir=directory / "state",
            domains_file=directory / "domains",
            rest=limit,
        )
        file = directory / "mxweir.toml"
        file.write_text(setup.toml())
        yield file


def served(verb: str, config_file: Path) -> dict[str, Metric]:
    """The families of a daemon that has just been started, by name."""
    if verb == "milter" and find_spec("Milter") is None:
        pytest.skip("pymilter is not installed")
    config = load(config_file)
    endpoint = config.milter.http if verb == "milter" else config.policyd.http
    assert isinstance(endpoint, Inet)
    with Daemon(verb, config_file):
        families = text_string_to_metric_families(get(endpoint, "/metrics")[1])
        return {family.name + ("_total" if family.type == "counter" else ""): family for family in families}


@pytest.mark.parametrize(("verb", "heading"), [("policyd", "Policy daemon"), ("milter", "Milter")])
def test_the_page_has_every_metric_of_a_daemon_with_its_type_and_no_other(
    config_file: Path,
    page: Callable[[str], str],
    rows: Callable[[str], list[list[str]]],
    verb: str,
    heading: str,
) -> None:
    section = page("metrics").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    told = {row[0].strip("`"): row for row in rows(section) if row[0].startswith("`mxweir_")}
    found = served(verb, config_file)
    assert set(told) == set(found)
    for name, family in found.items():
        assert told[name][1] == family.type, name
        for sample in family.samples:
            labels = set(re.findall(r"`(\w+)`", told[name][2]))
            assert set(sample.labels) - {"le"} == labels, name


@pytest.mark.parametrize(("kind", "words"), [("outcome", Outcome), ("reason", Reason)])
def test_the_page_has_every_outcome_and_every_reason_and_no_other(
    page: Callable[[str], str],
    rows: Callable[[str], list[list[str]]],
    kind: str,
    words: type[Outcome] | type[Reason],
) -> None:
    table = page("metrics").split(f"`{kind}` is one of:\n\n")[1].split("\n\n")[0]
    assert {row[0].strip("`") for row in rows(table)} == {word.value for word in words}


def test_the_page_says_of_each_reason_whether_the_setting_unscanned_applies(
    page: Callable[[str], str], rows: Callable[[str], list[list[str]]]
) -> None:
    table = page("metrics").split("`reason` is one of:\n\n")[1].split("\n\n")[0]
    for row in rows(table):
        reason = Reason(row[0].strip("`"))
        assert row[2].startswith("no") == (reason.passes or reason is Reason.UNHEARD), reason
