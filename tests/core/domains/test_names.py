"""One rule for names: whatever text it is, it is accepted in one form or refused with a reason."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxweir.address import fold_domain
from mxweir.domains.names import LONGEST, valid_domain

LABELS = st.from_regex(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", fullmatch=True)


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("Example.ORG", "example.org"),
        ("example.org.", "example.org"),
        ("_dmarc.ex-ample.org", "_dmarc.ex-ample.org"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER。Example", "xn--bcher-kva.example"),
        ("bu\u0308cher.example", "xn--bcher-kva.example"),
        ("ｅｘａｍｐｌｅ．org", "example.org"),
        ("straße.example", "xn--strae-oqa.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("例え.テスト", "xn--r8jz45g.xn--zckzah"),
        ("пример.рф", "xn--e1afmkfd.xn--p1ai"),
        ("r3---sn-ab.example", "r3---sn-ab.example"),
        ("xn--i-7iq.ws", "xn--i-7iq.ws"),
        ("so\u00adft.example", "soft.example"),
        (f"{'a' * 63}.{'b' * 63}.{'c' * 63}.{'d' * 61}", f"{'a' * 63}.{'b' * 63}.{'c' * 63}.{'d' * 61}"),
    ],
)
def test_a_possible_mail_domain_has_one_form(text, domain):
    assert valid_domain(text) == domain


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "'' is no domain name: there is nothing between two dots"),
        ("a..example", "'a..example' is no domain name: there is nothing between two dots"),
        (
            "a b.example",
            "'a b.example' is no domain name: ' ' is no letter, digit, - or _",
        ),
        ("-a.example", "'-a.example' is no domain name: '-a' begins or ends with a hyphen"),
        ("xn--a-.example", "'xn--a-.example' is no domain name: 'xn--a-' begins or ends with a hyphen"),
        ("xn--a-b.example", "'xn--a-b.example' is no domain name: 'xn--a-b' stands for nothing (RFC 3492)"),
        ("xn--.example", "'xn--.example' is no domain name: 'xn--' begins or ends with a hyphen"),
        ("localhost", "'localhost' has no dot; a relay domain has at least two labels"),
        ("192.0.2.1", "'192.0.2.1' is an address, not a domain"),
        ("١٩٢.0.2.1", "'١٩٢.0.2.1' is no international domain name (IDNA 2008): "),
        ("i❤.ws", "'i❤.ws' is no international domain name (IDNA 2008): Codepoint U+2764 at position 2"),
        ("aא.example", "'aא.example' is no international domain name (IDNA 2008): "),
        ("a\ud800.example", "is no international domain name (IDNA 2008): "),
        (f"{'ü' * 60}.example", "is no international domain name (IDNA 2008): "),
    ],
)
def test_what_is_none_is_refused_with_the_reason(text, why):
    with pytest.raises(ValueError, match=r".") as error:
        valid_domain(text)
    assert why in str(error.value)


@pytest.mark.parametrize(
    "text", ["ü" * 2048, "a" * 4096, "a." * 2048, "\u00ad" * 2047 + "a.example", "." * 4096]
)
def test_a_name_of_four_kilobytes_is_refused_at_once_and_shown_shortened(text):
    with pytest.raises(ValueError, match=r"longer than 253|no domain name") as error:
        valid_domain(text)
    assert len(str(error.value)) < 500


@given(st.text(max_size=300) | st.lists(st.text(max_size=70), max_size=6).map(".".join))
def test_any_text_is_accepted_or_refused(text):
    why = domain = ""
    try:
        domain = valid_domain(text)
    except ValueError as error:
        why = str(error)
    assert bool(why) != bool(domain)
    assert "\n" not in why
    if domain:
        assert valid_domain(domain) == fold_domain(text) == domain
        assert domain.isascii()
        assert domain == domain.lower()
        assert 3 <= len(domain) <= LONGEST


@given(st.lists(LABELS, min_size=2, max_size=4).map(".".join).filter(lambda name: "xn--" not in name))
def test_what_dns_takes_is_taken_as_it_is(name):
    if name.rpartition(".")[2].isdigit() or len(name) > LONGEST:
        with pytest.raises(ValueError, match=r"is an address|longer than"):
            valid_domain(name)
    else:
        assert valid_domain(name.upper()) == name
