import argparse
import io
import sys
from types import SimpleNamespace

import pytest

from mxweir_ops.commands import explain


def test_a_value_on_stdin_may_hold_what_other_programs_take_for_a_line_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = "request=smtpd_access_policy\nsender=a\x0cb\u2028c\x85@d.example\nrecipient=e@example.org\n\n"
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(text.encode())))
    attributes = explain._attributes(argparse.Namespace(**dict.fromkeys(explain._GIVEN)))
    assert attributes["sender"] == "a\x0cb\u2028c\x85@d.example"
    assert attributes["recipient"] == "e@example.org"
