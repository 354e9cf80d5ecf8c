import os
import signal
import subprocess
import sys
import textwrap
import time
from functools import partial
from pathlib import Path

import pytest

from mxweir.events import Event
from mxweir_ops.lab.process import wait_until
from mxweir_ops.supervisor import FIRST_PAUSE, LONGEST_PAUSE, Supervisor, next_pause

PATIENT = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(0))\nwhile True: time.sleep(60)"


def python(code: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(code)]


def run(commands: dict[str, list[str]], until: str, drain: float = 60.0) -> tuple[int, list[str]]:
    """Supervise until a line that was told contains `until`, then SIGTERM; the status and all lines."""
    told: list[str] = []
    end = time.monotonic() + 120

    def tell(event: Event) -> None:
        told.append(" ".join(map(str, event)))

    def tick() -> None:
        if any(until in line for line in told) or time.monotonic() > end:
            os.kill(os.getpid(), signal.SIGTERM)

    return Supervisor(commands, drain, tell).run(tick), told


@pytest.mark.parametrize(
    ("pause", "lived", "expected"),
    [
        (0, 0.1, FIRST_PAUSE),
        (0.5, 0.1, 1.0),
        (16, 0.1, 30),
        (LONGEST_PAUSE, 3, LONGEST_PAUSE),
        (LONGEST_PAUSE, 61, FIRST_PAUSE),
    ],
)
def test_the_pause_before_a_restart_doubles_up_to_half_a_minute_and_a_long_life_clears_it(
    pause: float, lived: float, expected: float
) -> None:
    assert next_pause(pause, lived) == expected


def test_a_child_that_dies_is_started_again_while_the_others_live_on(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    pids = tmp_path / "pids"
    dying = f"""
        import os, time
        while not os.path.exists({str(pids)!r}): time.sleep(0.01)
        open({str(starts)!r}, 'a').write('x')
        raise SystemExit(3)
    """
    living = f"import os; open({str(pids)!r}, 'a').write(f'{{os.getpid()}} ')\n" + PATIENT
    status, told = run({"dying": python(dying), "living": python(living)}, "starting again in 1 s")
    assert status == 0, told
    # A third one may be starting when the end comes.
    assert starts.read_text() in ("xx", "xxx")
    assert len(pids.read_text().split()) == 1
    assert told[0].startswith("dying ended status 3 after")


@pytest.mark.parametrize("status", [1, 2])
def test_a_first_start_that_fails_stops_everything_with_its_status(status: int) -> None:
    refusing = python(f"raise SystemExit({status})")
    done, told = run({"refusing": refusing, "living": python(PATIENT)}, "never")
    assert done == status
    assert told[0].startswith(f"refusing ended status {status} after")
    assert "stopping the others" in told[0]


@pytest.mark.parametrize("status", [1, 2])
def test_a_start_that_fails_after_the_first_one_does_not_stop_the_others(tmp_path: Path, status: int) -> None:
    mark = str(tmp_path / "mark")
    code = f"import os; again = os.path.exists({mark!r}); open({mark!r}, 'w')\n"
    code += f"raise SystemExit({status} if again else 3)"
    done, told = run({"once": python(code), "living": python(PATIENT)}, "starting again in 1 s")
    assert done == 0
    assert f"status {status}" in told[1]


def test_a_child_that_hangs_is_killed_after_the_drain_time_and_the_status_says_so(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    deaf = f"""
        import signal, time
        signal.signal(15, signal.SIG_IGN)
        open({str(ready)!r}, "w").close()
        while True: time.sleep(60)
    """
    told: list[str] = []
    supervisor = Supervisor({"deaf": python(deaf)}, 0.2, lambda event: told.append(str(event[0])))

    def tick() -> None:
        if ready.exists():
            os.kill(os.getpid(), signal.SIGTERM)

    assert supervisor.run(tick) == 1
    assert told[-1] == "deaf killed"


def test_the_signal_handlers_of_before_are_back_after_a_run() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    run({"refusing": python("raise SystemExit(2)")}, "never")
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


SUPERVISE = """
    import sys
    from mxweir_ops.supervisor import Supervisor
    sys.exit(Supervisor({"child": [sys.executable, "-c", sys.argv[1]]}, 60, lambda event: None).run())
"""
RELOADING = """
import signal, sys, time
signal.signal(signal.SIGHUP, lambda *_: open(%r, "a").write("reload "))
signal.signal(signal.SIGTERM, lambda *_: (open(%r, "a").write("stop "), sys.exit(0)))
open(%r, "a").write("ready ")
while True: time.sleep(0.05)  # a signal just before signal.pause() would not end that
"""


def reads(file: Path, text: str) -> bool:
    return file.read_text() == text


def test_a_hangup_is_passed_on_when_there_is_no_terminal(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    code = RELOADING % ((str(journal),) * 3)
    process = subprocess.Popen([*python(SUPERVISE), code], start_new_session=True)
    try:
        for number, expected in ((signal.SIGHUP, "ready reload "), (signal.SIGTERM, "ready reload stop ")):
            assert wait_until(lambda: journal.exists() and journal.read_text().startswith("ready"), 60)
            process.send_signal(number)
            assert wait_until(partial(reads, journal, expected), 60)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def test_closing_the_terminal_stops_it(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    code = RELOADING % ((str(journal),) * 3)
    terminal, inside = os.openpty()
    # setsid -c makes it the leader of a session whose terminal is its standard input.
    process = subprocess.Popen(["setsid", "-c", *python(SUPERVISE), code], stdin=inside)
    os.close(inside)
    try:
        assert wait_until(journal.exists, 60)
        os.close(terminal)
        assert wait_until(lambda: journal.read_text() == "ready stop ", 60)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def test_stdin_of_the_children_ends_when_the_supervisor_is_killed_and_not_before(tmp_path: Path) -> None:
    child = f"""
        import sys
        from pathlib import Path
        Path({str(tmp_path)!r}, sys.argv[1]).touch()
        sys.stdin.read()
        Path({str(tmp_path)!r}, sys.argv[1] + " ended").touch()
    """
    commands = {name: [*python(child), name] for name in ("one", "two")}
    supervisor = f"""
        from mxweir_ops.supervisor import Supervisor
        Supervisor({commands!r}, 60.0, print).run()
    """
    with subprocess.Popen(python(supervisor), stdout=subprocess.DEVNULL) as process:
        try:
            assert wait_until(lambda: len(list(tmp_path.iterdir())) == 2, 60)
            assert {path.name for path in tmp_path.iterdir()} == {"one", "two"}
        finally:
            process.kill()
    assert wait_until(lambda: len(list(tmp_path.glob("* ended"))) == 2, 60)
