"""The page of commands, against the argument tree."""

import argparse
import re
from collections.abc import Callable, Iterator
from importlib import import_module

import pytest

from mxweir_ops import cli


def tree() -> argparse.ArgumentParser:
    """The whole argument tree, as `mxweir --help` builds it."""
    built: list[argparse.ArgumentParser] = []
    with pytest.MonkeyPatch.context() as patch:

        def keep(parser: argparse.ArgumentParser, _: object = None) -> argparse.Namespace:
            built.append(parser)
            return argparse.Namespace(run=lambda _: 0)

        patch.setattr(argparse.ArgumentParser, "parse_args", keep)
        cli.main(["--help"])
    return built[0]


def leaves(parser: argparse.ArgumentParser, name: str) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Each command that does something, with its words."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not groups or name == "mxweir":
        yield name, parser
    for group in groups:
        for word, inner in group.choices.items():
            yield from leaves(inner, f"{name} {word}")


def options(parser: argparse.ArgumentParser) -> set[str]:
    """Its options and arguments, but for --help."""
    found: set[str] = set()
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction | argparse._SubParsersAction):
            continue
        if action.option_strings:
            takes = f" {action.metavar}" if action.nargs != 0 and action.metavar else ""
            found.add(action.option_strings[-1] + takes)
        else:
            found.add(str(action.metavar))
    return found


def test_the_page_has_every_command_and_no_other(page: Callable[[str], str]) -> None:
    told = re.findall(r"^## (mxweir.*)$", page("commands"), re.MULTILINE)
    assert sorted(told) == sorted(name for name, _ in leaves(tree(), "mxweir"))


def test_the_page_has_every_option_of_every_command_and_no_other(
    page: Callable[[str], str], rows: Callable[[str], list[list[str]]]
) -> None:
    parsers = dict(leaves(tree(), "mxweir"))
    for section in page("commands").split("\n## ")[1:]:
        name, _, text = section.partition("\n")
        assert {row[0].strip("`") for row in rows(text)} == options(parsers[name]), name


def test_every_command_has_a_file_of_its_own_or_shares_one() -> None:
    for file in set(cli._FILES.values()):
        assert import_module(f"mxweir_ops.commands.{file}").add_parser
