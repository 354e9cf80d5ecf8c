"""An SMTP reply in its parts."""

from typing import NamedTuple


class Reply(NamedTuple):
    """A refusal: SMTP code, enhanced code (RFC 3463) and one line of ASCII text without `%`."""

    code: str
    enhanced: str
    text: str

    @property
    def permanent(self) -> bool:
        """Whether the sender shall not try again."""
        return self.code.startswith("5")

    def __str__(self) -> str:
        return f"{self.code} {self.enhanced} {self.text}"
