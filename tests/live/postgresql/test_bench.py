"""The benchmark of the database runs, and means what it prints."""

from mxweir_bench import database


def test_every_size_is_imported_asked_read_and_compared():
    part = database.part([300, 600])
    assert [row["domains"] for row in part.figures] == [300, 600]
    for row in part.figures:
        assert all(figure > 0 for figure in row.values())
        assert row["ratio"] == row["by_scan"] / row["by_hash"]
    assert "| 600 " in part.text
    assert "at least 500" in [target.wanted for target in part.targets]
