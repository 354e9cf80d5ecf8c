import re
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxweir.address import (
    NULL_SENDER,
    bounded,
    fold_client,
    fold_domain,
    fold_recipient,
    fold_sender,
    registrable_domain,
    split,
    text_of,
)

LARGEST = 255

# What a stranger may send: mostly the signs that folding looks at, sometimes anything.
SIGNS = (
    "aAbZ019.-_=+@#<>\\ srs0SRS1prvsbtvxn\xad\xdf\xfc\u0130\u0345\u03a3\u03c2\u13a0\u212a\u3002\uff0e\u6f22"
)
RAW = st.one_of(
    st.text(SIGNS, max_size=50).map(str.encode),
    st.lists(
        st.sampled_from(["srs0=", "srs1=", "prvs=", "h=", "t9=", "a.example", "=", "+", "-", "bob", "@", "."])
    ).map(lambda parts: "".join(parts).encode()),
    st.binary(max_size=80),
    st.binary(min_size=300, max_size=700),
)


@pytest.mark.parametrize(
    ("sender", "folded"),
    [
        ("Bob@Example.ORG", "bob@example.org"),
        ("bob@example.org.", "bob@example.org"),
        ("Bob+news@example.org", "bob@example.org"),
        ("bob+a+b@example.org", "bob@example.org"),
        ("+bob@example.org", "+bob@example.org"),
        ("bob", "bob"),
        ("", NULL_SENDER),
        ("<>", NULL_SENDER),
        ('"bob@home"@example.org', '"bob@home"@example.org'),
        ("bob smith@example.org", "bob smith@example.org"),
        ("bob@[192.0.2.1]", "bob@[192.0.2.1]"),
        ("bob@M\xfcnchen.Example", "bob@xn--mnchen-3ya.example"),
        ("J\xfcrgen@example.org", "j\xfcrgen@example.org"),
        # BATV: prvs=TAG=LOCAL, the older prvs=LOCAL=TAG, and the other names it goes by
        ("prvs=0123abcdef=bob@b.example", "bob@b.example"),
        ("prvs=bob=0123abcdef@b.example", "bob@b.example"),
        ("btv1==0a1b2c==bob@b.example", "bob@b.example"),
        ("msprvs1=18k3fj_x=bob@b.example", "bob@b.example"),
        ("prvs=1=prvs=2=prvs=3=bob@b.example", "bob@b.example"),
        ("prvs=0123abcdef=bob+x@b.example", "bob@b.example"),
        # SRS: the hash and the day change, who sent it does not
        ("SRS0=x1=T9=a.example=bob@f.org", "srs0=a.example=bob@f.org"),
        ("SRS0+y2=U3=a.example=Bob@f.org", "srs0=a.example=bob@f.org"),
        ("SRS0-=U3=a.example=bob=c@f.org", "srs0=a.example=bob=c@f.org"),
        ("srs0=a.example=bob@f.org", "srs0=a.example=bob@f.org"),
        ("SRS1=zz=g.org==x1=T9=a-b.example=bob@f.org", "srs1=g.org=a-b.example=bob@f.org"),
        ("SRS0=x1=T9=lists.org=news-bob=b.example@f.org", "srs0=lists.org=news@f.org"),
        # VERP: the recipient is written into the sender
        ("news-bob=b.example@lists.org", "news@lists.org"),
        ("news-alice=c.example@lists.org", "news@lists.org"),
        ("news+bob=b.example@lists.org", "news@lists.org"),
        ("our-news+bob=b.example@lists.org", "our-news@lists.org"),
        ("prvs=0123abcdef=news-bob=b.example@lists.org", "news@lists.org"),
        # VERP by number
        ("bounce-8837462-77@esp.example", "bounce-#-#@esp.example"),
        ("bounce-8837463-78@esp.example", "bounce-#-#@esp.example"),
        ("0100018c1f2e3d4a-00aabb12-bounces@ses.example", "#-#-bounces@ses.example"),
        # ... and what only looks like it
        ("12345678@mobile.example", "12345678@mobile.example"),
        ("bob-1999@example.org", "bob-1999@example.org"),
        ("mary-jane@example.org", "mary-jane@example.org"),
        ("deadbeef-cafe@example.org", "deadbeef-cafe@example.org"),
        # an @ with nothing behind it is no way to a new key
        ("bob@example.org@", "bob@example.org"),
        ("bob@example.org@.@@", "bob@example.org"),
        ("@", "@"),
        ("bob@", "bob"),
    ],
)
def test_a_sender_folds_to_what_stays_the_same(sender, folded):
    assert fold_sender(sender) == folded


@pytest.mark.parametrize(
    ("recipient", "delimiter", "folded"),
    [
        ("Bob@Example.ORG", "+", "bob@example.org"),
        ("bob+news@example.org", "+", "bob@example.org"),
        ("bob+news@example.org", "", "bob+news@example.org"),
        ("bob-news@example.org", "+", "bob-news@example.org"),
        ("bob-news+x@example.org", "+-", "bob@example.org"),
        ("bob+news-x@example.org", "+-", "bob@example.org"),
        ("+bob@example.org", "+", "+bob@example.org"),
        ("prvs=0123abcdef=bob@b.example", "+", "prvs=0123abcdef=bob@b.example"),
        ("postmaster", "+", "postmaster"),
        ("b\xfccher@B\xdcCHER.example.", "+", "b\xfccher@xn--bcher-kva.example"),
        ("", "+", "@"),
    ],
)
def test_a_recipient_folds_to_its_mailbox(recipient, delimiter, folded):
    assert fold_recipient(recipient, delimiter) == folded


@pytest.mark.parametrize(
    ("domain", "folded"),
    [
        ("Example.ORG", "example.org"),
        ("example.org.", "example.org"),
        ("example.org..", "example.org"),
        ("B\xfccher.example", "xn--bcher-kva.example"),
        ("BU\u0308CHER.example", "xn--bcher-kva.example"),
        ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
        ("b\xfccher\u3002example", "xn--bcher-kva.example"),
        ("b\xfccher.example\uff0e", "xn--bcher-kva.example"),
        ("stra\xdfe.example", "xn--strae-oqa.example"),
        ("\u4f8b\u3048.jp", "xn--r8jz45g.jp"),
        ("_dmarc.b\xfccher.example", "_dmarc.xn--bcher-kva.example"),
        ("\U0001f4a9\U0001f4a9.\xdcber.example", "\U0001f4a9\U0001f4a9.xn--ber-goa.example"),
        ("[IPv6:2001:DB8::1]", "[ipv6:2001:db8::1]"),
        ("no dots", "no dots"),
        ("", ""),
    ],
)
def test_a_domain_folds_to_lower_case_a_labels(domain, folded):
    assert fold_domain(domain) == folded


@pytest.mark.parametrize(
    ("domain", "organization"),
    [
        ("example.org", "example.org"),
        ("u.a.b.c.d.spam.example", "spam.example"),
        ("mail.example.co.uk", "example.co.uk"),
        ("co.uk", "co.uk"),
        ("a.b.github.io", "b.github.io"),
        ("www.xn--bcher-kva.de", "xn--bcher-kva.de"),
        ("shop.xn--55qx5d.cn", "shop.xn--55qx5d.cn"),
        ("localhost", "localhost"),
        ("[192.0.2.1]", "[192.0.2.1]"),
        ("", ""),
    ],
)
def test_the_registrable_domain_is_one_label_more_than_the_public_suffix(domain, organization):
    assert registrable_domain(domain) == organization


@pytest.mark.parametrize(
    ("address", "canonical", "network"),
    [
        ("192.0.2.77", "192.0.2.77", "192.0.2.0/24"),
        ("2001:DB8:0:1::5", "2001:db8:0:1::5", "2001:db8:0:1::/64"),
        ("2001:0db8:0000:0001:ffff::1", "2001:db8:0:1:ffff::1", "2001:db8:0:1::/64"),
        ("::ffff:192.0.2.77", "192.0.2.77", "192.0.2.0/24"),
        ("Unknown", "unknown", "unknown"),
        ("", "", ""),
        ("192.0.2.077", "192.0.2.077", "192.0.2.077"),
    ],
)
def test_a_client_folds_to_its_address_and_its_network(address, canonical, network):
    assert fold_client(address, 24, 64) == (canonical, network)


def test_the_prefixes_say_how_large_a_network_is():
    assert fold_client("192.0.2.77", 32, 64)[1] == "192.0.2.77/32"
    assert fold_client("192.0.2.77", 16, 64)[1] == "192.0.0.0/16"
    assert fold_client("2001:db8:1:2:3::", 24, 48)[1] == "2001:db8:1::/48"


@given(RAW, st.sampled_from(["", "+", "-", "+-"]))
def test_folding_twice_is_folding_once(raw, delimiter):
    text = text_of(raw)
    for fold in (
        fold_domain,
        fold_sender,
        lambda address: fold_recipient(address, delimiter),
        lambda domain: registrable_domain(fold_domain(domain)),
        lambda client: fold_client(client, 24, 64)[0],
    ):
        once = fold(text)
        assert fold(once) == once


@given(RAW)
def test_whatever_a_stranger_sends_makes_a_short_key_of_valid_text(raw):
    text = text_of(raw)
    for key in (
        fold_sender(text),
        fold_recipient(text, "+"),
        fold_domain(text),
        registrable_domain(fold_domain(text)),
        registrable_domain(fold_domain(split(text)[1])),
        *fold_client(text, 24, 64),
    ):
        assert len(key) <= LARGEST
        assert key.encode().decode() == key


@given(RAW)
def test_an_address_never_folds_to_nothing(raw):
    assert fold_sender(text_of(raw)) != ""
    assert fold_recipient(text_of(raw), "+") != ""


@given(st.text(max_size=40), st.from_regex(r"[a-z0-9.-]*[a-z]", fullmatch=True))
def test_the_last_at_sign_parts_an_address(local, domain):
    assert split(f"{local}@{domain}") == (local, domain)


def test_an_address_of_the_longest_legal_length_stays_readable_and_a_longer_key_is_hashed():
    longest = "l" * 64 + "@" + "d" * 189
    assert len(longest) == 254
    assert fold_sender(longest) == fold_recipient(longest, "") == longest
    assert bounded(longest + "d") == longest + "d"
    assert bounded(longest + "dd").startswith("sha256:")
    assert bounded(longest + "dd") != bounded(longest + "de")


@pytest.mark.parametrize(("sign", "most"), [("a", 255), ("ä", 127), ("中", 127), ("😀", 63)])
def test_a_key_is_bounded_by_the_bytes_that_it_takes(sign, most):
    assert bounded("a" * (most - 1) + sign) == "a" * (most - 1) + sign
    assert bounded("a" * most + sign).startswith("sha256:")
    assert sys.getsizeof(bounded(sign * most)) <= 255 + sys.getsizeof("😀")


def test_tags_nested_a_thousand_deep_are_no_trouble():
    for tag in ("prvs=1=", "srs0=h=t=a.b=", "srs1=h=g.h==h=t=a.b="):
        assert fold_sender(tag * 1000 + "bob@b.example").startswith("sha256:")


def test_bytes_that_are_no_utf8_are_written_out():
    assert text_of(b"caf\xe9@example.org") == "caf\\xe9@example.org"
    assert text_of("caf\xe9@example.org".encode()) == "caf\xe9@example.org"


@given(st.text("@.\u3002ab", max_size=12))
def test_an_at_sign_with_no_domain_behind_it_counts_for_nothing(address: str) -> None:
    assert split(address) == split(re.sub("@[@.\u3002]*$", "", address))
    assert split(address) == split(address + "@.")


def test_splitting_takes_time_by_the_length_of_an_address_and_not_by_its_square() -> None:
    def seconds(length: int) -> float:
        address = "@" * length + "x"
        began = time.perf_counter()
        split(address)
        return time.perf_counter() - began

    assert min(seconds(64_000) for _ in range(5)) < 100 * max(1e-6, *(seconds(4000) for _ in range(5)))
