"""`mxweir policyd` and `mxweir milter`, as far as the command line goes."""

import argparse
from pathlib import Path

import pytest

from mxweir_ops.commands import daemons


@pytest.mark.parametrize("verb", ["policyd", "milter"])
def test_each_daemon_takes_its_configuration(verb: str) -> None:
    parser = argparse.ArgumentParser()
    daemons.add_parser(parser.add_subparsers())
    args = parser.parse_args([verb, "--config", "/etc/other.toml"])
    assert args.config == Path("/etc/other.toml")
    assert args.run is getattr(daemons, f"run_{verb}")
