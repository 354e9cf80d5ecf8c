import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxweir_milter.fronts.codec import Negotiate, ProtocolError
from mxweir_milter.fronts.options import Action, Options, Step, agree

BITS = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize(
    ("offered", "agreed"), [(2, 2), (3, 3), (4, 4), (5, 5), (6, 6), (7, 6), (2**32 - 1, 6)]
)
def test_the_version_is_the_newest_that_both_speak(offered, agreed):
    assert agree(Negotiate(offered, 0x1FF, 0x1FFFFF), Action(0), Step(0)).version == agreed


@pytest.mark.parametrize("version", [0, 1])
def test_a_version_before_the_second_is_refused(version):
    with pytest.raises(ProtocolError, match=f"version {version} of the protocol"):
        agree(Negotiate(version, 0x1FF, 0x1FFFFF), Action(0), Step(0))


@given(BITS, BITS, st.integers(0, 0x1FF), st.integers(0, 0x1FFFFF))
def test_nothing_is_agreed_on_that_was_not_both_offered_and_wanted(actions, steps, wanted, wanted_steps):
    agreed = agree(Negotiate(6, actions, steps), Action(wanted), Step(wanted_steps))
    assert agreed.actions == wanted & (actions or 0xF)
    assert agreed.steps == wanted_steps & (steps or 0x3F)


def test_no_bits_at_all_stand_for_what_the_first_version_had():
    everything = Negotiate(2, 0, 0)
    assert agree(everything, ~Action(0), ~Step(0)) == Options(2, Action(0xF), Step(0x3F))


def test_bits_are_those_of_the_milter_documents():
    assert sum(Action) == 0x1FF
    assert sum(Step) == 0x1FFFFF
