"""The express lane: questions that nothing objects to, answered in a row without a call in between.

Nearly every question is one more recipient, at a domain of ours, with room in
every limit. For that case this module writes, once a configuration, the loop
that somebody would write by hand for exactly these limits, as `dataclasses`
writes `__init__`. For one limit by sender it reads:

    def express(requests, replies, now):
        reply = replies.append
        most = len(requests)
        repeats.make_room()
        lately, before = repeats.young, repeats.old
        at0 = now * rate0
        full0 = at0 + burst0
        young0, old0 = table0.young, table0.old
        if len(young0) + most > table0.half:
            return
        for state, client, helo, sender, recipient, _, instance, _, user, context in requests:
            if state != b"RCPT":
                return
            client = clients[client]
            ...
            if recipient.domain not in ours and state_of(recipient.domain) is not OURS:
                return
            identity = hash((instance, state, recipient.given)) if instance else 0
            if identity in lately or identity in before:
                reply(PASSED)
                continue
            key0 = sender.address
            turn0 = young0.get(key0) or old0.get(key0, 0.0)
            turn0 = (turn0 if turn0 > at0 else at0) + 1.0
            if not key0 or turn0 > full0:
                return
            young0[key0] = turn0
            if identity:
                lately.add(identity)
            reply(PASSED)

It ends at the first question that is not of this kind, or at which anything
fails, with nothing charged for it. The long way that this one then goes,
`Pipeline.decide`, is what defines the answer; a property test holds the two
together. A question costs half as much as the long way, and most of what is left
is memory that the processor has to wait for.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from mxweir.access import AccessList
from mxweir.domains.match import State
from mxweir.facts import Facts, Folder, fold_word
from mxweir.ratelimit.arithmetic import ROUNDING
from mxweir.ratelimit.limits import LONGEST_JOINED, SEPARATOR, Limit, Limits
from mxweir.ratelimit.memory import GcraTable
from mxweir_policyd.protocol import Attributes, format_reply

if TYPE_CHECKING:
    from mxweir_policyd.pipeline import Domains

Express = Callable[[Sequence[Attributes], list[Any], float], None]
"""Takes questions, the list that their replies are put into, and the time in seconds.

Ends with the questions, or before the first that it leaves to the long way.
"""

PASSED = format_reply("DUNNO")

ATTRIBUTES = "state, client, helo, sender, recipient, queue_id, instance, size, user, context"
"""A request's attributes, by the names that the lines below have for them."""

_PLACES = {
    "client_address": "client.address",
    "client_network": "client.network",
    "helo": "fold_word(helo)",
    "sender": "sender.address",
    "sender_domain": "sender.domain",
    "sender_org": "sender.org",
    "recipient": "recipient.mailbox",
    "recipient_domain": "recipient.domain",
    "sasl_username": "fold_word(user)",
}
"""How each key is read from what the loop has at hand."""

_SEPARATOR = repr(SEPARATOR)


def write_express(folder: Folder, access: AccessList, domains: "Domains", limits: Limits) -> Express:
    """The express lane of these checks; to be written anew when limits are given other tables."""
    asked = limits.asked_at(b"RCPT", b"")
    names = names_of_checks(folder, access, domains, limits)
    for i, limit in enumerate(asked):
        names |= _names(i, limit)
    begin = [*_BEGIN, *(line for i, limit in enumerate(asked) for line in _begin(i, limit))]
    each = [line for i, limit in enumerate(asked) for line in _ask(i, limit)]
    each += [line for i, limit in enumerate(asked) for line in _charge(i, limit)]
    return compiled(begin, [*checks(access), *each, *_DONE], names)


def names_of_checks(folder: Folder, access: AccessList, domains: "Domains", limits: Limits) -> dict[str, Any]:
    """What `checks` and `key_lines` speak of."""
    return {
        "clients": folder.client,
        "senders": folder.sender,
        "recipients": folder.recipient,
        "fold_word": fold_word,
        "Facts": Facts,
        "find": access.find,
        "ours": domains.ours,
        "state_of": domains.state,
        "OURS": State.OURS,
        "repeats": limits.repeats,
        "PASSED": PASSED,
    }


def checks(access: AccessList) -> list[str]:
    """The lines that come before the limits: access, relay, repeated questions."""
    return [*_RELAY, *([] if access.empty else _ACCESS), *_REPEATS]


def key_lines(i: int, limit: Limit) -> tuple[list[str], list[str]]:
    """The lines that make `key<i>`, the limit's key; and what may be wrong with it, as expressions."""
    names = limit.rule.key
    parts = [f"part{i}_{j}" for j in range(len(names))] if len(names) > 1 else [f"key{i}"]
    lines = [f"{part} = {place(name)}" for part, name in zip(parts, names, strict=True)]
    unknown = [f"not {part}" for part in parts]
    if len(parts) > 1:
        lines.append(f"key{i} = {f' + {_SEPARATOR} + '.join(parts)}")
    if len(parts) > 2:
        unknown.append(f"len(key{i}) > {LONGEST_JOINED}")
    return lines, unknown


def place(name: str) -> str:
    """The expression that a key is read by."""
    return _PLACES[name]


def compiled(
    begin: Iterable[str], each: Iterable[str], names: dict[str, Any], request: str = ATTRIBUTES
) -> Express:
    """The function that does `begin` once and `each` for every request, which is read into `request`.

    What goes wrong in it, goes wrong again on the long way, and is told there.
    """
    loop = [*begin, f"for {request} in requests:", *_indented(each)]
    body = ["try:", *_indented(loop), "except Exception:", "    return"]
    exec("\n".join(["def express(requests, replies, now):", *_indented(body)]), names)  # noqa: S102 - our own text
    express: Express = names["express"]
    return express


_BEGIN = (
    "reply = replies.append",
    "most = len(requests)",
    "repeats.make_room()",
    "lately, before = repeats.young, repeats.old",
)
_RELAY = (
    'if state != b"RCPT":',
    "    return",
    "client = clients[client]",
    "sender = senders[sender]",
    "recipient = recipients[recipient]",
    "if context:",
    '    if context == b"relay" and state_of(recipient.domain) is OURS:',
    "        reply(PASSED)",
    "        continue",
    '    if context != b"limits":',
    "        return",
    "elif recipient.domain not in ours and state_of(recipient.domain) is not OURS:",
    "    return",
)
_ACCESS = (
    "facts = (client, sender, recipient, helo, user, state, context, instance, queue_id, size)",
    "if find(tuple.__new__(Facts, facts), now) is not None:",
    "    return",
)
_REPEATS = (
    "identity = hash((instance, state, recipient.given)) if instance else 0",
    "if identity in lately or identity in before:",
    "    reply(PASSED)",
    "    continue",
)
_DONE = (
    "if identity:",
    "    lately.add(identity)",
    "reply(PASSED)",
)


def _names(i: int, limit: Limit) -> dict[str, Any]:
    table = limit.table
    if not isinstance(table, GcraTable):
        return {f"table{i}": table}
    return {
        f"table{i}": table,
        f"rate{i}": table.rate,
        f"burst{i}": table.burst + ROUNDING,
        f"own{i}": table.own,
    }


def _begin(i: int, limit: Limit) -> list[str]:
    """What is the same for all questions of a row."""
    if not isinstance(limit.table, GcraTable):
        return []
    return [
        f"at{i} = now * rate{i}",
        f"full{i} = at{i} + burst{i}",
        f"young{i}, old{i} = table{i}.young, table{i}.old",
        f"if len(young{i}) + most > table{i}.half:",
        "    return",
    ]


def _ask(i: int, limit: Limit) -> list[str]:
    """The key, and whether its limit has room."""
    lines, unknown = key_lines(i, limit)
    return [*lines, *(_ask_rate if isinstance(limit.table, GcraTable) else _ask_table)(i, limit, unknown)]


def _ask_rate(i: int, limit: Limit, unknown: Sequence[str]) -> list[str]:
    own = [f"key{i} in own{i}"] if limit.rule.overrides else []
    return [
        f"turn{i} = young{i}.get(key{i}) or old{i}.get(key{i}, 0.0)",
        f"turn{i} = (turn{i} if turn{i} > at{i} else at{i}) + 1.0",
        f"if {' or '.join([*unknown, f'turn{i} > full{i}', *own])}:",
        "    return",
    ]


def _ask_table(i: int, limit: Limit, unknown: Sequence[str]) -> list[str]:
    value = place(limit.rule.distinct) if limit.rule.distinct else '""'
    return [
        f"if {' or '.join(unknown)}:",
        "    return",
        f"_, wait, mark{i} = table{i}.ask(key{i}, {value}, 1.0, now)",
        "if wait > 0.0:",
        "    return",
    ]


def _charge(i: int, limit: Limit) -> list[str]:
    if not isinstance(limit.table, GcraTable):
        return [f"table{i}.put(key{i}, mark{i})"]
    return [f"young{i}[key{i}] = turn{i}"]


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"    {line}" for line in lines]
