from mxweir_bench.report import at_least, at_most, disturbances, table, targets_table


def test_a_table_is_markdown_with_aligned_columns() -> None:
    assert table(("server", "rate"), [("noop", "1"), ("mxweir", "10")]).splitlines() == [
        "| server | rate |",
        "|--------|------|",
        "| noop   | 1    |",
        "| mxweir | 10   |",
    ]


def test_a_share_just_below_its_target_is_missed() -> None:
    assert at_least("rate", 0.28, 0.28).met
    assert not at_least("rate", 0.2799, 0.28).met


def test_a_figure_just_above_its_target_is_missed() -> None:
    assert at_most("p99", 5.0, 5, "ms").met
    assert not at_most("p99", 5.01, 5, "ms").met


def test_the_targets_say_what_was_wanted_and_what_was_measured() -> None:
    shown = targets_table([at_most("p99, 64 connections", 6.0, 5, "ms")])
    assert "| p99, 64 connections | at most 5 ms | 6.00 ms  | missed |" in shown


def test_the_runs_that_others_disturbed_are_told() -> None:
    assert disturbances([0.0, 0.5, 0.05]).startswith("In 1 of 3 runs")
