"""Every change that a milter may ask for, as libmilter writes it, is what `replies` makes: byte for byte."""

import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest

from mxweir.endpoint import Unix
from mxweir_milter.fronts import replies
from mxweir_milter.fronts.options import Action, Options, Stage, Step
from mxweir_ops.lab.mta import Mta
from mxweir_ops.lab.place import connect, temporary_directory
from mxweir_ops.lab.process import Child

# Asks for one change at the end of each message, the first for the first, and so on.
MILTER = """
import sys, Milter
from itertools import count

changes = [
    lambda ctx: ctx.addheader("X-Added", " value\\n\\tfolded"),
    lambda ctx: ctx.addheader("X-Inserted", "value", 3),
    lambda ctx: ctx.chgheader("Subject", 2, "other"),
    lambda ctx: ctx.chgheader("Subject", 1, None),
    lambda ctx: ctx.chgfrom("<c@d>"),
    lambda ctx: ctx.chgfrom("<c@d>", "RET=HDRS"),
    lambda ctx: ctx.addrcpt("<c@d>"),
    lambda ctx: ctx.addrcpt("<c@d>", "NOTIFY=NEVER"),
    lambda ctx: ctx.delrcpt("<b@example.org>"),
    lambda ctx: ctx.replacebody("other\\r\\n" * 20_000),
    lambda ctx: ctx.quarantine("a reason"),
    lambda ctx: ctx.progress(),
    lambda ctx: ctx.setreply("550", "5.7.1", "No, 100%% no") or Milter.REJECT,
    lambda ctx: ctx.setreply("451", "4.7.1", "Later") or Milter.TEMPFAIL,
    lambda ctx: Milter.REJECT,
    lambda ctx: Milter.TEMPFAIL,
    lambda ctx: Milter.DISCARD,
]
number = count()

def end(ctx):
    return changes[next(number)](ctx) or Milter.ACCEPT

def negotiate(ctx, offered):
    offered[1:] = [0, 0, 0]
    ctx.setsymlist(Milter.M_ENVFROM, "i {auth_authen}")
    return Milter.CONTINUE

Milter.set_flags(0x1FF)
Milter.set_eom_callback(end)
Milter.register("changes", negotiate=negotiate)
Milter.setconn("unix:" + sys.argv[1])
Milter.main()
"""

CHANGES = [
    replies.add_header(b"X-Added", b" value\n\tfolded"),
    replies.insert_header(3, b"X-Inserted", b"value"),
    replies.change_header(2, b"Subject", b"other"),
    replies.change_header(1, b"Subject", b""),
    replies.change_sender(b"<c@d>"),
    replies.change_sender(b"<c@d>", b"RET=HDRS"),
    replies.add_recipient(b"<c@d>"),
    replies.add_recipient(b"<c@d>", b"NOTIFY=NEVER"),
    replies.delete_recipient(b"<b@example.org>"),
    b"".join(replies.replace_body(b"other\r\n" * 20_000)),
    replies.quarantine("a reason"),
    replies.PROGRESS,
]
ANSWERS = [
    *(change + replies.ACCEPT for change in CHANGES),
    replies.reply("550", "5.7.1", "No, 100% no"),
    replies.reply("451", "4.7.1", "Later"),
    replies.REJECT,
    replies.TEMPFAIL,
    replies.DISCARD,
]


@pytest.mark.skipif(find_spec("Milter") is None, reason="pymilter is not installed")
def test_every_answer_is_written_as_libmilter_writes_it() -> None:
    with temporary_directory() as directory:
        listen = directory / "milter"
        child = Child("pymilter", [sys.executable, "-c", MILTER, listen], directory / "log")
        try:
            child.wait_ready(lambda: _listens(listen), 20)
            with Mta(Unix(str(listen))) as mta:
                mta.negotiate()
                options = Options(6, Action(0x1FF), Step(0))
                assert mta.heard == replies.negotiate(options, {Stage.MAIL: ("i", "{auth_authen}")})
                mta.greet()
                for answer in ANSWERS:
                    # Steps that this milter has no callback for are answered by libmilter itself.
                    begin(mta)
                    mta.heard.clear()
                    mta.say(b"E")
                    assert bytes(mta.heard) == answer
        finally:
            child.kill()


def _listens(path: Path) -> bool:
    """Its file is there a moment before that."""
    with suppress(OSError), connect(Unix(str(path))):
        return True
    return False


def begin(mta: Mta) -> None:
    mta.say(b"M", b"<a@sender.example>\0")
    mta.say(b"R", b"<b@example.org>\0")
    mta.say(b"T")
    mta.say(b"N")


def test_the_milter_of_this_test_asks_for_as_many_changes_as_are_compared() -> None:
    assert MILTER.count("lambda ctx:") == len(ANSWERS)
