"""The path of a recipient: the values on the page are those that the code makes of its request."""

import io
import re
from pathlib import Path

import pytest

from mxweir.config.load import loads
from mxweir.config.sections import Log
from mxweir.events import Decided
from mxweir.log import LogObserver
from mxweir_policyd.pipeline import Pipeline
from mxweir_policyd.protocol import Request, RequestReader, format_reply
from mxweir_policyd.refresh import DomainsFile
from mxweir_policyd.relaydomains.replica import Replica
from mxweir_policyd.worker import build_pipeline

PAGE = (Path(__file__).parents[2] / "docs" / "path-of-a-recipient.md").read_text()
FIRST = b"bounce-8837462-77@m1.shop.example"


def block(start: str) -> str:
    """The block of code that begins with these words."""
    found = re.search(rf"^```\n({re.escape(start)}.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert found, start
    return found[1]


@pytest.fixture
def request_() -> Request:
    (request,) = RequestReader().feed(block("request=smtpd_access_policy").encode())
    return Request(*request)


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    config = loads(re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[0])
    domains = tmp_path / "domains"
    domains.write_text(block("example.org"))
    replica = Replica(tmp_path)
    DomainsFile(domains, 0.2).load(replica, lambda _: None)
    return build_pipeline(config, replica)


def test_the_request_on_the_page_is_read_as_the_page_says(request_: Request) -> None:
    said = dict(re.findall(r"(\w+)=b'([^']*)'", PAGE))
    assert {name: value.encode() for name, value in said.items()} == request_._asdict()


def test_its_facts_are_those_on_the_page(request_: Request, pipeline: Pipeline) -> None:
    facts = pipeline.facts(request_)
    table = PAGE.split("| fact | value | what was done |")[1].split("\n\n")[0]
    values = re.findall(r"^\| [\w ]+ \| `([^`]+)` \|", table, re.MULTILINE)
    assert values == [
        facts.client.network,
        facts.sender.address,
        facts.sender.domain,
        facts.sender.org,
        facts.recipient.mailbox,
        facts.recipient.domain,
    ]


def test_three_messages_pass_and_the_fourth_gets_the_reply_on_the_page(
    request_: Request, pipeline: Pipeline
) -> None:
    replies = []
    for number, digit in enumerate(b"2012"):
        asked = request_._replace(
            sender=FIRST.replace(b"62-", b"6%c-" % digit),
            instance=b"%d" % number,
            policy_context=b"limits",
        )
        relay = asked._replace(policy_context=b"relay")
        assert pipeline.decide(pipeline.facts(relay), 1000.0 + number / 20).reply == "DUNNO"
        replies.append(pipeline.decide(pipeline.facts(asked), 1000.0 + number / 20).reply)
    assert replies[:3] == ["DUNNO"] * 3
    assert replies[3].startswith("550 ")
    assert format_reply(replies[3]).decode() in PAGE
    assert format_reply(replies[0]).decode() in PAGE


def test_the_line_on_the_page_has_the_fields_that_a_decision_has(
    request_: Request, pipeline: Pipeline
) -> None:
    written = io.StringIO()
    observer = LogObserver(Log(), lambda: 0.0, "policyd", written)
    facts = pipeline.facts(request_)
    observer.handlers()[Decided](Decided(facts, pipeline.decide(facts, 1000.0), 0.001))
    (shown,) = re.findall(r"^time=.* verdict=pass .*$", PAGE, re.MULTILINE)
    assert re.findall(r"(\w+)=", shown) == re.findall(r"(\w+)=", written.getvalue())
