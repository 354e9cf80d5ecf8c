from mxweir.ratelimit.refusals import Refusals

NOW = 1_800_000_000.0


def test_a_refusal_is_known_until_there_could_be_room():
    refusals = Refusals(100)
    refusals.add("a", NOW + 3.0, 1.0, "5/5", NOW)
    found = refusals.find("a", 1.0, NOW + 2.9)
    assert found is not None
    assert (found.free, found.figure) == (NOW + 3.0, "5/5")
    assert refusals.find("a", 1.0, NOW + 3.0) is None
    assert refusals.find("b", 1.0, NOW) is None


def test_it_is_believed_for_ten_seconds_at_most():
    refusals = Refusals(100)
    refusals.add("a", NOW + 3600.0, 1.0, "5/5", NOW)
    assert refusals.find("a", 1.0, NOW + 9.9) is not None
    assert refusals.find("a", 1.0, NOW + 10.0) is None


def test_it_says_nothing_of_a_smaller_cost():
    refusals = Refusals(100)
    refusals.add("a", NOW + 3.0, 500.0, "700/1000", NOW)
    assert refusals.find("a", 499.0, NOW) is None
    assert refusals.find("a", 500.0, NOW) is not None
    assert refusals.find("a", 9000.0, NOW) is not None


def test_a_key_that_was_reset_is_forgotten_in_both_generations():
    refusals = Refusals(100)
    refusals.add("a", NOW + 3.0, 1.0, "5/5", NOW)
    refusals.turn()
    refusals.add("b", NOW + 3.0, 1.0, "5/5", NOW)
    refusals.forget("a")
    refusals.forget("b")
    refusals.forget("c")
    assert len(refusals) == 0


def test_however_many_keys_are_refused_they_are_bounded():
    refusals = Refusals(100)
    for i in range(10_000):
        refusals.add(f"key {i}", NOW + 3.0, 1.0, "5/5", NOW)
        assert len(refusals) <= 100
    for second in range(40):
        refusals.tick(NOW + second)
    assert len(refusals) == 0
