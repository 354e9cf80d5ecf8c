from hypothesis import given
from hypothesis import strategies as st

from mxweir_policyd.relaydomains.progress import Progress


@given(st.builds(Progress, seen=st.floats(0, 1e12), compared=st.none() | st.text(max_size=64)))
def test_it_comes_back_from_its_stored_form(progress: Progress) -> None:
    assert Progress.decode(progress.encode()) == progress


def test_that_of_a_replica_not_begun_is_that_of_nothing_stored() -> None:
    assert Progress.decode(None) == Progress()
