"""Answers that are known later, because a backend has to be asked first; no I/O.

A connection gets its answers in the order of its questions, so an answer that is
known waits behind one that is not. Other connections go on meanwhile.
"""

from collections import deque
from collections.abc import Callable, Iterable
from typing import TypeVar, cast

T = TypeVar("T")

Write = Callable[[bytes], object]


class Owed:
    """An answer that is not known yet.

    It begins without attributes of its own: there is one a question, and setting them would cost more
    than making it.
    """

    reply: bytes | None = None
    known: Callable[[], None] = staticmethod(lambda: None)
    """Called when it is."""


class Debts:
    """All answers that are owed by a daemon."""

    def __init__(self) -> None:
        self.open = 0
        """How many there are."""

    def owe(
        self, ask: Callable[[Callable[[T], None]], None], finish: Callable[[T], bytes | Owed]
    ) -> bytes | Owed:
        """Ask a backend, and have `finish` make the answer of what it says; bytes if it is said at once.

        `ask` is handed what it has to call with the backend's word, exactly once. `finish` may owe in turn:
        there may be two backends to ask, one after the other.
        """
        owed = self.begin()

        def heard(word: T) -> None:
            try:
                answer = finish(word)
            except BaseException:
                self.open -= 1
                raise
            if isinstance(answer, Owed):
                answer.known = lambda: self.settle(owed, cast("bytes", answer.reply))
            else:
                self.settle(owed, answer)

        ask(heard)
        return owed if owed.reply is None else owed.reply

    def begin(self) -> Owed:
        """Owe one more answer."""
        self.open += 1
        return Owed()

    def settle(self, owed: Owed, reply: bytes) -> None:
        """The answer is known now."""
        self.open -= 1
        owed.reply = reply
        owed.known()

    def settle_all(self, owed: Iterable[Owed], reply: bytes) -> None:
        """All of these have the same answer."""
        for one in owed:
            self.open -= 1
            one.reply = reply
            one.known()


class Answers:
    """The answers of one connection, in the order of its questions."""

    __slots__ = ("_waiting", "_write")

    def __init__(self, write: Write) -> None:
        self._write = write
        self._waiting: deque[bytes | Owed] = deque()

    def __len__(self) -> int:
        """How many are not written yet."""
        return len(self._waiting)

    def give(self, answer: bytes | Owed) -> None:
        """Write an answer as soon as it is known and those before it are written."""
        self._waiting.append(answer)
        if isinstance(answer, Owed):
            answer.known = self._go_on
            if answer.reply is None:
                return
        self._go_on()

    def _go_on(self) -> None:
        waiting = self._waiting
        while waiting:
            answer = waiting[0]
            reply = answer.reply if isinstance(answer, Owed) else answer
            if reply is None:
                return
            waiting.popleft()
            self._write(reply)
