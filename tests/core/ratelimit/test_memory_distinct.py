"""The bound of a distinct-count table."""

from mxweir.ratelimit.memory import DistinctTable, Pace, Paces


def held(table: DistinctTable) -> int:
    """Values in memory, those of both generations."""
    return sum(
        len(seen) for seen in {id(s): s for s in (*table.young.values(), *table.old.values())}.values()
    )


def test_keys_that_get_one_more_value_in_each_generation_do_not_outgrow_the_bound() -> None:
    table = DistinctTable(Paces(Pace(50.0, 3600.0, 50.0), {}), capacity=1000)
    for value in range(50):
        for key in range(400):
            _, wait, mark = table.ask(f"key {key}", f"value {value}", 1.0, 1e9 + value)
            if wait <= 0:
                table.put(f"key {key}", mark)
            assert held(table) <= 1000 + 50
