"""How far the replica has come, as it is stored: whatever stands there, the daemon starts."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxweir_policyd.relaydomains.progress import Progress

hashes = st.binary(max_size=32).map(bytes.hex)


@given(st.builds(Progress, seen=st.floats(0, 1e12), cursor=hashes, compared=st.none() | hashes))
def test_it_comes_back_from_its_stored_form(progress: Progress) -> None:
    assert Progress.decode(progress.encode()) == progress


def test_that_of_a_replica_not_begun_is_that_of_nothing_stored() -> None:
    assert Progress.decode(None) == Progress()


WHOLE = Progress(("1/1/2/3", "7:9:8", 1.0), filled=True, cursor="ff", compared="80", seen=2.0)


def test_what_a_later_version_added_counts_for_nothing() -> None:
    later = json.dumps(json.loads(WHOLE.encode()) | {"colour": "blue"}).encode()
    assert Progress.decode(later) == WHOLE


@pytest.mark.parametrize(
    ("part", "damaged"),
    [
        (b'"filled": true', b'"filled": trae'),
        (b'"point"', b'"pomnt"'),
        (b'["1/1/2/3", ', b"["),
        (b"1.0", b'"a"'),
        (b'"ff"', b'"fg"'),
        (b'"80"', b"80"),
        (b"{", b"\xff"),
        (b"{", b""),
    ],
)
def test_one_that_cannot_be_read_is_that_of_a_replica_not_begun(part: bytes, damaged: bytes) -> None:
    stored = WHOLE.encode()
    assert part in stored
    assert Progress.decode(stored.replace(part, damaged, 1)) == Progress()
