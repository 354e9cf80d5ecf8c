"""`mxweir doctor` beside the daemons as they run on an MX host."""

import json

from mxweir_ops.cli import main
from mxweir_ops.lab.stack import Stack


def test_where_all_runs_everything_answers(stack: Stack, capsys):
    only = ("--only", "sockets", "--only", "domains")
    status = main(["doctor", "--config", str(stack.config_file), "--json", *only])
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (status, {finding["state"] for finding in found}) == (0, {"good"}), found
    subjects = " ".join(finding["subject"] for finding in found)
    for name in (
        "policy daemon at",
        "map server at",
        "milter at",
        "/domains.lmdb",
        "relay-domains.lmdb",
        "transport.lmdb",
    ):
        assert name in subjects
