"""Whose mail the access list lets by unscanned. Pure.

The list is the policy daemon's, read the same way: in its order, the first entry
that matches decides. An entry that allows spares the scan. One that blocks spares
nothing here and refuses nothing either: the policy daemon has refused at RCPT
what Postfix asked it about, and what Postfix let by without asking (its own
networks, users who have logged in) was let by on purpose. But it ends the search,
so that an exception may stand above a wider allowance.
"""

from collections.abc import Sequence

from mxweir.access import AccessList
from mxweir.config import AccessEntry
from mxweir.facts import Facts, Folder
from mxweir_milter.facts import Client, bytes_of


class Allowed:
    """Looks up one recipient's mail at a time; there must be a Folder, so make none where no entry allows."""

    def __init__(self, entries: Sequence[AccessEntry], folder: Folder) -> None:
        self._entries = AccessList(entries, folder)
        self._folder = folder

    def rule(self, client: Client, sender: str, sasl_username: str, recipient: str, now: float) -> str:
        """The entry that allows it, such as `allow client_network`; "" when none does.

        `now` is in seconds since the epoch.
        """
        folder = self._folder
        facts = Facts(
            client=folder.client[bytes_of(client.address)],
            sender=folder.sender[bytes_of(sender)],
            recipient=folder.recipient[bytes_of(recipient)],
            helo=bytes_of(client.helo),
            sasl_username=bytes_of(sasl_username),
            state=b"RCPT",
            context=b"",
            instance=b"",
            queue_id=b"",
            size=b"",
        )
        entry = self._entries.find(facts, now)
        return entry.rule if entry is not None and entry.allow else ""
