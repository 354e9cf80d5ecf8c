"""The flags of domains in chunks: against a dictionary."""

from hashlib import sha256

from hypothesis import given, settings
from hypothesis import strategies as st

from mxweir.domains.chunks import CHUNKS, NOTHING, changed, look_up, name_of, number_of, wide
from mxweir.domains.record import INCLUDES_SUBDOMAINS

PLACES = st.sampled_from([0, 1, 2**30, 2**31, 2**32 - 2, 2**32 - 1]) | st.integers(0, 2**32 - 1)
KEYS = st.builds(
    lambda place, rest: bytes(2) + place.to_bytes(4) + rest.to_bytes(26), PLACES, st.integers(0, 12)
)
"""All of one chunk, many with the same place in it."""


def found(chunk: bytes, key: bytes) -> int:
    return look_up(memoryview(chunk) if chunk else NOTHING, key)


@settings(deadline=None)
@given(st.lists(st.dictionaries(KEYS, st.integers(0, 255), max_size=60), max_size=6), st.lists(KEYS))
def test_a_chunk_has_of_each_domain_the_flags_that_it_was_given_last(
    steps: list[dict[bytes, int]], others: list[bytes]
) -> None:
    chunk, model = b"", dict[bytes, int]()
    for changes in steps:
        chunk = changed(chunk, changes)
        # Ten bytes of a hash tell domains apart.
        model |= {key[2:12]: flags for key, flags in changes.items()}
        for key in [*changes, *others]:
            assert found(chunk, key) == model.get(key[2:12], 0)
    assert bool(chunk) is any(model.values())
    assert wide(chunk) == sum(bool(flags & INCLUDES_SUBDOMAINS) for flags in model.values())


@settings(max_examples=20, deadline=None)
@given(st.sets(st.integers(0, 300), min_size=100), st.data())
def test_single_changes_of_a_full_chunk_leave_the_others_as_they_are(
    numbers: set[int], data: st.DataObject
) -> None:
    keys = [bytes(2) + sha256(str(number).encode()).digest()[:30] for number in sorted(numbers)]
    chunk, model = changed(b"", dict.fromkeys(keys, 1)), dict.fromkeys(keys, 1)
    for _ in range(30):
        key, flags = data.draw(st.sampled_from(keys)), data.draw(st.integers(0, 2))
        chunk, model[key] = changed(chunk, {key: flags}), flags
    assert {key: found(chunk, key) for key in keys} == model


def test_chunks_are_in_the_order_of_the_hashes_and_so_many() -> None:
    names = [name_of(number_of(number.to_bytes(2) + bytes(30))) for number in range(65536)]
    assert names == sorted(names)
    assert len(set(names)) == CHUNKS


def test_half_a_member_and_half_the_next_are_no_member() -> None:
    first, second = bytes.fromhex("00000000000001020304"), bytes.fromhex("00000001020300000000")
    chunk = changed(b"", {bytes(2) + member + bytes(20): 5 for member in (first, second)})
    between = (first + b"\5" + second)[4:14]
    assert found(chunk, bytes(2) + between + bytes(20)) == 0
