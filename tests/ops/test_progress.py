"""A bar for whoever looks, and nothing for a file."""

import io

from mxweir_ops.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_it_is_drawn_a_few_times_a_second_and_taken_away():
    stream, now = Terminal(), 0.0
    bar = Progress("domains", 200, stream, lambda: now)
    for now in (1.0, 1.01, 1.02, 2.0):
        bar.at(int(now * 100), "so many")
    bar.say("comparing")
    bar.close()
    assert stream.getvalue().split("\r\x1b[K") == [
        "",
        f"domains [{'#' * 15:30}]  50%  so many",
        f"domains [{'#' * 30}] 100%  so many",
        "comparing",
        "",
    ]


def test_elsewhere_it_says_nothing():
    stream = io.StringIO()
    bar = Progress("domains", 0, stream)
    bar.at(5)
    bar.say("comparing")
    bar.close()
    assert stream.getvalue() == ""
