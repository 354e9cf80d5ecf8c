"""The frame around all commands: what is called, by which configuration, with which status and output."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mxweir import __version__
from mxweir_ops.cli import _FILES, main

MXWEIR = [sys.executable, "-P", "-m", "mxweir_ops"]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration whose table holds a few domains."""
    path = tmp_path / "mxweir.toml"
    path.write_text(f'state_dir = "{tmp_path}/state"\n[domains]\nfile = "{tmp_path}/domains"\n')
    assert main(["domains", "add", "example.org", "bücher.example", "--config", str(path)]) == 0
    return path


def run(config: Path, stdout: int, *words: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Have a command print to a file that is already open."""
    return subprocess.run(
        [*MXWEIR, *words, "--config", str(config)],
        check=False,
        stdout=stdout,
        stderr=subprocess.PIPE,
        timeout=120,
        env={key: value for key, value in os.environ.items() if not key.startswith("PYTHON")} | environment,
    )


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["--version"])
    assert (done.value.code, capsys.readouterr().out) == (0, f"mxweir {__version__}\n")


@pytest.mark.parametrize("words", [[], *([command] for command in _FILES)])
def test_every_command_has_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main([*words, "--help"])
    assert done.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith(" ".join(["usage: mxweir", *words]))
    assert words or all(command in shown for command in _FILES)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["polcyd"],
        ["config"],
        ["config", "chek"],
        ["domains"],
        ["domains", "add"],
        ["domains", "import"],
        ["policyd", "--confg", "x"],
        ["explain", "surplus"],
        ["policyd", "--config"],
    ],
    ids=" ".join,
)
def test_misuse_ends_with_status_2_and_says_how_it_is_used(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as done:
        main(words)
    assert done.value.code == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("usage: mxweir")
    assert "error: " in shown.err


def test_the_configuration_is_that_of_the_option_else_of_the_environment(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MXWEIR_CONFIG", str(config))
    assert main(["domains", "check", "example.org"]) == 0
    capsys.readouterr()
    assert main(["config", "check", "--config", "/nonexistent/mxweir.toml"]) == 2
    assert capsys.readouterr().err == (
        "/nonexistent/mxweir.toml: cannot be read: No such file or directory\n"
    )
    monkeypatch.setenv("MXWEIR_CONFIG", "/nonexistent/other.toml")
    assert main(["domains", "check", "example.org"]) == 2
    assert capsys.readouterr().err.startswith("/nonexistent/other.toml: ")


@pytest.mark.parametrize(
    "words",
    [["policyd"], ["config", "check"], ["config", "show"], ["config", "postfix"], ["domains", "export"]],
)
def test_a_broken_configuration_ends_every_command_with_status_2_and_all_its_mistakes(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mxweir.toml"
    path.write_text('state_dri = "/x"\n\n[policyd]\ndeadline = "soon"\n')
    assert main([*words, "--config", str(path)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    first, second = shown.err.splitlines()
    assert first == f'{path}:1: state_dri: unknown key; did you mean "state_dir"?'
    assert second.startswith(f"{path}:4: policyd.deadline: 'soon' is not a duration")


def test_a_reader_that_goes_away_is_no_reason_to_complain(config: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = run(config, writing, "domains", "export")
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


def test_a_full_disk_under_the_output_is_told_in_one_line(config: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = run(config, full.fileno(), "domains", "export")
    assert (done.returncode, done.stderr) == (2, b"mxweir domains: stdout: No space left on device\n")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_is_printed_does_not_depend_on_who_has_it_printed(config: Path, encoding: str) -> None:
    entry = '[[access]]\nblock = "sender_org"\nvalue = "bulk.example"\nreason = "für immer"\n'
    config.write_text(config.read_text() + entry)
    done = run(config, subprocess.PIPE, "config", "show", PYTHONIOENCODING=encoding)
    assert 'reason = "für immer"\n' in done.stdout.decode()
    assert done.stderr == b""


def test_a_name_of_bytes_that_are_no_text_is_shown_and_no_fault_of_ours(config: Path) -> None:
    argv = [*map(os.fsencode, MXWEIR), b"domains", b"check", b"\xff.example", b"--config", bytes(config)]
    done = subprocess.run(
        argv,
        check=False,
        capture_output=True,
        timeout=120,
        env={"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "utf-8:strict"},
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, b"\\udcff.example: not ours\n", b"")
