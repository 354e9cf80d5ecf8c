from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxweir.config import loads
from mxweir_milter.policy import Rule, Ruling, Treatment, Treatments, decide, milder, ruling, treatments_of
from mxweir_milter.testing import score
from mxweir_milter.verdict import NEVER, Failed, Outcome, Reason, Thresholds

MILD = Treatment("mild", 0, Thresholds(7.0, 20.0, 30.0))
STRICT = Treatment("strict", 1, Thresholds(3.0, NEVER, 6.0), unscanned="defer")
HELD = Treatment("held", 2, Thresholds(5.0, 8.0), unscanned="quarantine")
SHOWN = Treatment("shown", 3, Thresholds(5.0, rewrite_subject_at=6.0))
DEFAULT = Treatment("default", 4, Thresholds(5.0, 8.0, 12.0))
EVERY = (MILD, STRICT, HELD, SHOWN, DEFAULT)


# Whose mail gets which treatment


@pytest.fixture
def treatments():
    rules = [
        Rule(MILD, ("example.org", ".tree.example")),
        Rule(STRICT, ("xn--bcher-kva.example", "a.tree.example"), ("acme",)),
        Rule(HELD, (".b.tree.example",), ("zenith",)),
    ]
    tenants = {"example.org": "acme", "acme.example": "acme", "zenith.example": "zenith", "odd.example": "?"}
    return Treatments(DEFAULT, rules, lambda domain: tenants.get(domain, ""))


@pytest.mark.parametrize(
    ("recipient", "name"),
    [
        ("anna@example.org", "mild"),
        ("anna@EXAMPLE.org.", "mild"),
        ("anna@sub.example.org", "default"),
        ("anna@tree.example", "mild"),
        ("anna@x.y.tree.example", "mild"),
        ("anna@nottree.example", "default"),
        ("anna@bücher.example", "strict"),
        ("anna@XN--BCHER-KVA.example", "strict"),
        ("anna@acme.example", "strict"),
        ("anna@zenith.example", "held"),
        ("anna@odd.example", "default"),
        ('"a@example.org"@zenith.example', "held"),
        ("postmaster", "default"),
        ("", "default"),
        ("\udcff@\udcff", "default"),
        ("anna@" + "a." * 500 + "tree.example", "default"),
    ],
)
def test_the_domain_or_its_tenant_chooses_the_policy(treatments, recipient, name):
    assert treatments.of(recipient).name == name


@pytest.mark.parametrize(
    ("recipient", "name"), [("anna@a.tree.example", "mild"), ("anna@x.b.tree.example", "mild")]
)
def test_of_several_policies_that_match_the_first_one_counts(treatments, recipient, name):
    assert treatments.of(recipient).name == name


def test_no_tenant_is_looked_up_where_no_policy_names_one():
    def fail(domain: str) -> str:
        raise AssertionError(domain)

    Treatments(DEFAULT, [Rule(MILD, ("example.org",))], fail).of("anna@acme.example")


def test_what_a_policy_leaves_out_is_as_for_everybody():
    settings = loads("""
        [milter]
        tag_at = 4.0
        quarantine_at = 8
        reject_at = 12.0
        reject_text = "No spam, please"
        unscanned = "defer"
        [[milter.policy]]
        name = "acme"
        tenant = "acme"
        recipient_domain = ["Example.ORG", ".bücher.example"]
        reject_at = "never"
        rewrite_subject_at = 5
        unscanned = "quarantine"
        """).milter
    found = treatments_of(settings, lambda _: "")
    thresholds = Thresholds(4.0, 8.0, NEVER, 5.0)
    mine = Treatment("acme", 0, thresholds, "[SPAM]", "No spam, please", "quarantine")
    assert found.of("anna@example.org") == found.of("anna@lists.xn--bcher-kva.example") == mine
    assert found.of("anna@example.com") == found.default
    default = Treatment("default", 1, Thresholds(4.0, 8.0, 12.0), "[SPAM]", "No spam, please", "defer")
    assert found.default == default


# What becomes of a message


@pytest.mark.parametrize(
    ("points", "recipients", "by", "action", "overruled"),
    [
        (2.0, EVERY, "mild", "ham", []),
        (5.5, EVERY, "mild", "ham", ["default:tagged", "shown:tagged", "held:tagged", "strict:tagged"]),
        (6.5, (STRICT, SHOWN), "shown", "rewritten", ["strict:rejected"]),
        (6.5, (DEFAULT, SHOWN), "default", "tagged", ["shown:rewritten"]),
        (9.0, (HELD, DEFAULT), "held", "quarantined", []),
        (9.0, (HELD, SHOWN), "shown", "rewritten", ["held:quarantined"]),
        (25.0, (STRICT, MILD), "mild", "quarantined", ["strict:rejected"]),
        (25.0, (STRICT, DEFAULT), "strict", "rejected", []),
        (35.0, (STRICT, MILD, DEFAULT), "mild", "rejected", []),
        (25.0, (STRICT, STRICT.spared("allow recipient")), "allow recipient", "tagged", ["strict:rejected"]),
        (2.0, (STRICT.spared("allow recipient"),), "allow recipient", "ham", []),
    ],
)
def test_of_several_recipients_the_mildest_policy_wins(points, recipients, by, action, overruled):
    mildest, others = decide(score(points), recipients)
    assert (mildest.treatment.name, mildest.action) == (by, action)
    assert [f"{each.treatment.name}:{each.action}" for each in others] == overruled


@pytest.mark.parametrize(
    ("recipients", "action"),
    [
        ((DEFAULT,), "accepted"),
        ((STRICT,), "deferred"),
        ((HELD,), "quarantined"),
        ((HELD, STRICT), "deferred"),
        ((HELD, STRICT, MILD), "accepted"),
        ((HELD.spared("allow sender"),), "accepted"),
    ],
)
def test_an_unscanned_message_is_accepted_before_it_is_deferred_and_deferred_before_it_is_held(
    recipients, action
):
    mildest, _ = decide(Failed(Reason.DEADLINE), recipients)
    assert (mildest.outcome, mildest.action) == (Outcome.UNSCANNED, action)


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason.passes])
@pytest.mark.parametrize("treatment", EVERY)
def test_what_no_retry_can_mend_is_accepted_by_every_policy(reason, treatment):
    assert ruling(Failed(reason), treatment).action == "accepted"


def test_no_subject_is_rewritten_with_nothing():
    treatment = Treatment(thresholds=Thresholds(rewrite_subject_at=5.0), subject_tag="")
    assert not ruling(score(9.0), treatment).rewrites_subject


# The mildest is an order: in whatever order recipients come, the same one wins

POINTS = st.one_of(st.floats(-20, 40), st.sampled_from([5.0, 8.0, 12.0]))
RESULTS = st.one_of(POINTS.map(score), st.sampled_from(Reason).map(Failed))
LIMITS = st.one_of(st.just(NEVER), POINTS)


@st.composite
def treatment_lists(draw):
    """Treatments as a configuration can have them: a place and a name each, some in their spared form too."""
    many = draw(st.integers(1, 6))
    found = []
    for place in range(many):
        thresholds = Thresholds(draw(POINTS), draw(LIMITS), draw(LIMITS), draw(LIMITS))
        unscanned = draw(st.sampled_from(["accept", "defer", "quarantine"]))
        each = Treatment(f"p{place}", place, thresholds, unscanned=unscanned)
        found += [
            each,
            *[each.spared(rule) for rule in draw(st.sets(st.sampled_from(["allow a", "allow b"])))],
        ]
    return found


@given(RESULTS, treatment_lists(), st.data())
def test_the_milder_of_two_is_commutative_associative_and_idempotent(result, treatments, data):
    one, other, third = (ruling(result, data.draw(st.sampled_from(treatments))) for _ in range(3))
    assert milder(one, other) == milder(other, one)
    assert milder(milder(one, other), third) == milder(one, milder(other, third))
    assert milder(one, one) == one


@given(RESULTS, treatment_lists(), st.data())
def test_the_mildest_is_one_of_them_and_does_no_more_than_any_other_in_whatever_order(
    result, treatments, data
):
    mildest, overruled = decide(result, data.draw(st.permutations(treatments)))
    rulings = [ruling(result, each) for each in treatments]
    assert mildest == reduce(milder, rulings)
    assert mildest in rulings
    assert all(mildest.rank <= each.rank for each in rulings)
    assert {each.treatment.name for each in overruled} <= {each.name for each in treatments}
    assert mildest not in overruled


@given(RESULTS, treatment_lists())
def test_no_two_treatments_of_a_configuration_share_a_place_in_the_order(result, treatments):
    assert len({ruling(result, each).rank for each in treatments}) == len(treatments)


@given(POINTS.map(score), treatment_lists(), LIMITS)
def test_another_recipient_never_makes_a_message_fare_worse(result, treatments, limit):
    def severity(found: Ruling) -> tuple[int, bool]:
        return found.rank[:2]

    for count in range(1, len(treatments)):
        fewer, _ = decide(result, treatments[:count])
        more, _ = decide(result, treatments[: count + 1])
        assert severity(more) <= severity(fewer)
