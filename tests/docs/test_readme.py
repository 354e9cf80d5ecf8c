"""The README: what it tells people to type is there, and what it shows is what they will see."""

import re
from pathlib import Path

import pytest

from mxweir.config.load import loads
from mxweir_ops.cli import main
from mxweir_ops.commands import config as command

TOP = Path(__file__).parents[2]
README = (TOP / "README.md").read_text()


def test_every_verb_of_make_that_a_document_names_is_in_the_makefile(documents: dict[str, str]) -> None:
    verbs = set(re.findall(r"^([a-z-]+):", (TOP / "Makefile").read_text(), re.MULTILINE))
    for name, text in documents.items():
        for verb in re.findall(r"(?:^|`)make ([a-z]+)", text, re.MULTILINE):
            assert verb in verbs, f"{name}: make {verb}"


def test_the_lines_for_postfix_in_the_readme_are_those_of_its_example_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "_queue_directory", lambda: "/var/spool/postfix")
    file = tmp_path / "mxweir.toml"
    (example,) = re.findall(r"^```toml\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    file.write_text(example)
    assert main(["config", "postfix", "--config", str(file)]) == 0
    assert capsys.readouterr().out in README


def test_the_example_configurations_in_the_documents_are_right(documents: dict[str, str]) -> None:
    for name, text in documents.items():
        for block in re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            loads(block, name)


def test_the_scenes_of_the_demo_in_the_readme_are_among_those_that_it_plays() -> None:
    from mxweir_ops.demonstration import SCENES  # noqa: PLC0415

    shown = re.findall(r"^(\d)\. (.+)$", README, re.MULTILINE)
    assert shown
    for number, title in shown:
        assert SCENES[int(number) - 1].title == title


def test_the_removal_takes_away_everything_that_is_installed(documents: dict[str, str]) -> None:
    told = documents["docs/operations.md"].split("## Stop it for good")[1]
    for unit in (TOP / "systemd").glob("*.socket"):
        assert unit.name in told
    for place in (
        "lib/mxweir",
        "bin/mxweir",
        "share/doc/mxweir",
        "sysusers.d/mxweir.conf",
        "tmpfiles.d/mxweir.conf",
    ):
        assert place in told


@pytest.mark.parametrize("word", ["localhost:", "/root/", "/home/", "/tmp/"])
def test_no_document_names_a_place_of_the_machine_it_was_written_on(
    documents: dict[str, str], word: str
) -> None:
    assert [name for name, text in documents.items() if word in text] == []
