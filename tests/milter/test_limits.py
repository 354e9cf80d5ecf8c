from mxweir.config import loads
from mxweir.facts import Folder
from mxweir.ratelimit.limits import Limits
from mxweir_milter.facts import Client
from mxweir_milter.limits import Asking, Gathered

FOLDER = Folder()
CLIENT = Client("mail.sender.example", "203.0.113.9", "helo.sender.example", "mx.example.org")


def asking(unit: str = "message") -> Asking:
    text = f'[[limit]]\nname = "n"\nkey = "from"\nunit = "{unit}"\nrate = "9/day"\n'
    return Asking(FOLDER, Limits(loads(text).limit, FOLDER))


def facts(gathered: Gathered, sender: str = "a@sender.example", queue_id: str = "A1"):
    return gathered.facts(CLIENT, sender, "user", queue_id, 123)


def test_a_message_is_told_with_all_that_a_limit_may_count_by():
    gathered = asking().begin()
    gathered.rcpt("Bob+x@Example.ORG")
    gathered.header(b"From", b" Anna <Anna@Deep.Shop.Example>")
    gathered.header(b"Subject", b" from: x@y.example")
    gathered.header(b"REPLY-TO ", b" claims@prize.example, other@prize.example")
    told = facts(gathered)
    assert (told.client.network, told.sender.org, told.helo) == (
        "203.0.113.0/24",
        "sender.example",
        b"helo.sender.example",
    )
    assert (told.sasl_username, told.size_in_bytes, told.recipient_count) == (b"user", 123, 1)
    assert [each.mailbox for each in told.recipients] == ["bob@example.org"]
    assert [(each.address, each.org) for each in told.authors] == [("anna@deep.shop.example", "shop.example")]
    assert [each.address for each in told.repliers] == ["claims@prize.example", "other@prize.example"]


def test_a_message_is_known_again_by_host_queue_id_client_and_sender_and_not_without_a_queue_id():
    gathered = asking().begin()
    same = [facts(gathered).instance for _ in range(2)]
    assert same[0] == same[1] != b""
    assert facts(gathered, queue_id="A2").instance not in same
    assert facts(gathered, sender="b@sender.example").instance not in same
    assert facts(gathered, queue_id="").instance == b""


def test_a_thousand_recipients_are_kept_and_all_are_counted():
    gathered = asking().begin()
    for number in range(1500):
        gathered.rcpt(f"r{number}@example.org")
    told = facts(gathered)
    assert (len(told.recipients), told.recipient_count) == (1000, 1500)


def test_more_addresses_than_count_each_are_one_key_in_each_of_its_forms():
    gathered = asking().begin()
    gathered.header(b"From", b", ".join(b"a%d@x%d.example" % (n, n) for n in range(9)))
    [author] = facts(gathered).authors
    assert (author.address, author.domain, author.org) == ("<many>",) * 3
    assert FOLDER.key("from", "<many>") == FOLDER.key("reply_to_org", "<many>") == "<many>"


def test_of_two_lists_that_are_too_long_another_one_is_another_value():
    def given(*values: bytes) -> str:
        gathered = asking().begin()
        for value in values:
            gathered.header(b"From", value)
        return str(facts(gathered).authors[0].given)

    nine, others = (b", ".join(b"a%d@%b.example" % (n, org) for n in range(9)) for org in (b"x", b"y"))
    assert given(nine) == given(nine) != given(others)
    assert given(*[b"a@x.example"] * 101) != given(*[b"b@x.example"] * 101)


def test_the_size_is_wanted_only_where_a_limit_counts_bytes():
    assert asking("byte").by_byte
    assert not asking("message").by_byte
