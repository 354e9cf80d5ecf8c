"""What the other side reads when a limit has no room, whichever daemon says it. Pure.

One line of printable ASCII: an SMTP code, an enhanced status code (RFC 3463) and a
reason to act on, without any text of the client's.
"""

from mxweir.ratelimit.limits import Refusal
from mxweir.reply import Reply


def reply_to(refusal: Refusal) -> Reply:
    """The refusal for whoever is refused."""
    limit = refusal.limit
    code, status = ("550", 5) if limit.rule.refuse == "reject" else ("450", 4)
    subject, text = 7, "You are sending too much mail"
    if limit.about_mailbox:
        subject, text = 2, "This recipient is getting too much mail"
    elif limit.rule.distinct:
        text = "Too many different addresses from you"
    again = f"there is room again in {_seconds(refusal.wait)}"
    return Reply(code, f"{status}.{subject}.1", f"{text} (limit {limit.name}, {refusal.rate}); {again}")


def _seconds(wait: float) -> str:
    whole = max(1, -int(-wait // 1))
    return f"{whole} s" if whole < 600 else f"{-(-whole // 60)} min"
