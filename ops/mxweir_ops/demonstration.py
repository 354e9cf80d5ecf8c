"""A handful of messages through real servers, and what became of each.

Everything is private to the demonstration and gone after it: Postfix, spamd,
both daemons, their files. The reasons shown are the daemons' own log lines.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

from mxweir_ops.lab import letters
from mxweir_ops.lab.client import Reply, send
from mxweir_ops.lab.place import temporary_directory
from mxweir_ops.lab.postfix import Postfix
from mxweir_ops.lab.process import wait_until
from mxweir_ops.lab.sink import Delivery
from mxweir_ops.lab.spamd import Spamd
from mxweir_ops.lab.stack import Plan, Stack

_LOG_SECONDS = 10.0

_RULES = """\
[[access]]
block = "sender_org"
value = "bulk.example"
reason = "never confirmed its addresses"

[[limit]]
name = "sender"
key = "sender"
rate = "3/hour"

[log]
format = "json"
"""

_MILTER = """\
tag_at = 5.0
reject_at = 15.0
"""


@dataclass(frozen=True, slots=True)
class Scene:
    """One message, or the same one several times, and the reply code that it should get in the end.

    `by` is the daemon that decides: policyd at the recipient, or the milter at the end of the message.
    """

    title: str
    sender: str
    recipient: str
    expected: int
    by: str
    body: str = letters.HONEST
    times: int = 1


SCENES = (
    Scene("accepted", "bert@sender.example", "anna@example.org", 250, "milter"),
    Scene("spam tagged", "james@lawyers.example", "anna@example.org", 250, "milter", letters.ADVANCE_FEE),
    Scene("spam rejected", "gtube@sender.example", "anna@example.org", 550, "milter", letters.GTUBE),
    Scene("relay denied", "carol@sender.example", "dave@elsewhere.example", 550, "policyd"),
    Scene("over the limit", "news@busy.example", "anna@example.org", 550, "policyd", times=4),
    Scene("blocked", "offers@mail7.bulk.example", "anna@example.org", 554, "policyd"),
)


class Shown(NamedTuple):
    """What became of a scene.

    `line` is the daemon's log line that explains it; `delivered` the headers
    X-Spam-* of the message as it arrived, None when it did not.
    """

    scene: Scene
    reply: Reply
    line: dict[str, Any]
    delivered: dict[str, str] | None

    @property
    def as_expected(self) -> bool:
        """Whether the reply is the one that the scene should get."""
        return self.reply.code == self.scene.expected


class Stage:
    """The servers, started by `with`; LabError says in one line what is missing."""

    def __init__(self) -> None:
        self._running = ExitStack()

    def __enter__(self) -> "Stage":
        Postfix.check()
        try:
            directory = self._running.enter_context(temporary_directory())
            spamd = self._running.enter_context(Spamd(directory))
            plan = Plan(engine=spamd.endpoint, milter=_MILTER, rest=_RULES)
            self._stack = self._running.enter_context(Stack(directory, plan))
        except BaseException:
            self._running.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._running.close()

    def play(self) -> Iterator[Shown]:
        """Send the scenes' messages in turn."""
        for scene in SCENES:
            yield self._show(scene)

    def _show(self, scene: Scene) -> Shown:
        reply = Reply(0, "nothing was sent")
        message_id = ""
        for _ in range(scene.times):
            message_id = letters.new_message_id()
            message = letters.letter(scene.body, message_id, scene.sender, scene.recipient)
            reply = send(self._stack.port, scene.sender, [scene.recipient], message).last
        delivered = None
        if reply.code == 250:
            delivered = _spam_headers(self._stack.maildir.wait_for(message_id)[0])
        return Shown(scene, reply, self._explanation(scene), delivered)

    def _explanation(self, scene: Scene) -> dict[str, Any]:
        """The last line of the daemon that decided; it writes it just after it has answered.

        The messages of a scene that passed have left lines of both daemons, so only
        a refusal explains a refusal.
        """
        found: list[dict[str, Any]] = []

        def look() -> bool:
            if scene.by == "milter":
                found[:] = self._stack.milter.records(event="scan", sender=scene.sender)
            else:
                asked = self._stack.policyd.records(event="decision", sender=scene.sender)
                found[:] = [line for line in asked if line.get("check")]
            return len(found) > 0

        wait_until(look, _LOG_SECONDS)
        return found[-1] if found else {}


def _spam_headers(delivery: Delivery) -> dict[str, str]:
    names = [name for name in delivery.message if name.lower().startswith("x-spam-")]
    return {name: delivery.header(name) or "" for name in names}
