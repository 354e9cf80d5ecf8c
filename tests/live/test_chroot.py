"""A default installation on Debian: a chrooted smtpd, and the sockets below its queue directory."""

from collections.abc import Callable

from mxweir_ops.lab import letters
from mxweir_ops.lab.client import send
from mxweir_ops.lab.letters import letter, new_message_id
from mxweir_ops.lab.spamd import Spamd
from mxweir_ops.lab.stack import Stack


def test_a_chrooted_smtpd_reaches_both_daemons_by_the_printed_lines(
    new_stack: Callable[..., Stack], spamd: Spamd, sender: str
) -> None:
    stack = new_stack(engine=spamd.endpoint, chroot=True)
    settings = stack.mx.settings
    assert "unix:mxweir/policy" in settings["smtpd_relay_restrictions"]
    assert "unix:mxweir/milter" in settings["smtpd_milters"]
    message_id = new_message_id()
    assert send(stack.port, sender, ["anna@example.org"], letter(message_id=message_id)).accepted
    assert stack.maildir.wait_for(message_id)[0].header("X-Spam-Flag") == "NO"
    assert send(stack.port, sender, ["anna@example.org"], letter(letters.GTUBE)).last.code == 550
    refused = send(stack.port, sender, ["dave@elsewhere.example"], letter()).last
    assert "relay access denied" in refused.text
    assert stack.mx.complaints() == []
