"""What plays Postfix towards a milter says what Postfix says, as read by mxweir's own codec."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from mxweir.endpoint import Unix
from mxweir_bench.mta import Closed, Letter, Session
from mxweir_milter.fronts import codec, replies
from mxweir_milter.fronts.options import Action, Options, Step

ALL = Options(6, Action(0x1FF), Step(0))


class Milter:
    """Answers each command with `answers[its type]`, or continue; remembers what it heard."""

    def __init__(self, options=ALL, answers=None):
        self.heard, self.begun = [], b""
        self.options = options
        self.answers = {codec.End: replies.ACCEPT} | (answers or {})
        self.hung_up = asyncio.Event()

    def whole(self, command):
        """The command; None as long as it is a piece of the body that goes on."""
        if not isinstance(command, codec.Body):
            return command
        self.begun += command.piece
        if not command.ends:
            return None
        piece, self.begun = self.begun, b""
        return codec.Body(piece)

    async def talk(self, reader, writer):
        commands = codec.CommandReader()
        while piece := await reader.read(65536):
            for command in map(self.whole, commands.feed(piece)):
                if command is None:
                    continue
                self.heard.append(command)
                if isinstance(command, codec.Negotiate):
                    writer.write(replies.negotiate(self.options, {}))
                elif not isinstance(command, codec.Define | codec.Abort):
                    writer.write(self.answers.get(type(command), replies.CONTINUE))
        writer.close()
        self.hung_up.set()

    def kinds(self):
        return [type(command).__name__ for command in self.heard]


@asynccontextmanager
async def serving(milter, tmp_path):
    endpoint = Unix(str(tmp_path / "milter"))
    async with await asyncio.start_unix_server(milter.talk, endpoint.path):
        yield endpoint
        async with asyncio.timeout(10):
            await milter.hung_up.wait()


async def test_a_message_is_told_in_postfixs_order_with_its_macros(tmp_path):
    milter = Milter()
    async with serving(milter, tmp_path) as endpoint, await Session.open(endpoint) as session:
        answer = await session.send(Letter(4096))
    assert answer.verdict == b"a"
    told = [kind for kind in milter.kinds() if kind != "Header"]
    first, second = (
        "Negotiate Define Connect Helo Define Mail Rcpt Define Data",
        "EndOfHeader Body Define End",
    )
    assert told == [*first.split(), *second.split()]
    (connect,) = [command for command in milter.heard if isinstance(command, codec.Connect)]
    assert connect == codec.Connect(b"mail.sender.example", b"4", 40000, b"203.0.113.9")
    defined = {
        command.command: command.macros for command in milter.heard if isinstance(command, codec.Define)
    }
    assert defined[b"C"]["j"] == "mx.lab.example"
    assert defined[b"M"] == {"{mail_addr}": "a@sender.example"}
    assert defined[b"E"] == {"i": "4Xy1Zz2abc"}


async def test_the_body_has_the_size_and_ends_in_a_line_end(tmp_path):
    milter = Milter()
    async with serving(milter, tmp_path) as endpoint, await Session.open(endpoint) as session:
        await session.send(Letter(200_000))
    pieces = [bytes(command.piece) for command in milter.heard if isinstance(command, codec.Body)]
    assert [len(piece) for piece in pieces] == [65535, 65535, 65535, 3395]
    assert pieces[-1].endswith(b"\r\n")


async def test_the_rest_of_a_body_is_left_out_when_the_milter_has_enough(tmp_path):
    milter = Milter(answers={codec.Body: replies.SKIP})
    async with serving(milter, tmp_path) as endpoint, await Session.open(endpoint) as session:
        await session.send(Letter(200_000))
    assert milter.kinds().count("Body") == 1
    assert milter.kinds()[-1] == "End"


async def test_steps_that_are_agreed_to_go_without_an_answer_are_not_waited_for(tmp_path):
    quiet = Step.NO_REPLY_CONNECT | Step.NO_REPLY_HELO | Step.NO_BODY | Step.NO_END_OF_HEADER
    silent = {codec.Connect: b"", codec.Helo: b""}
    milter = Milter(Options(6, Action(0x1FF), quiet), silent)
    async with serving(milter, tmp_path) as endpoint, await Session.open(endpoint) as session:
        await session.send(Letter(100))
    assert "Connect" in milter.kinds()
    assert not {"Body", "EndOfHeader"} & set(milter.kinds())


async def test_an_early_answer_ends_the_message_and_changes_come_before_the_answer(tmp_path):
    milter = Milter(answers={codec.Data: replies.ACCEPT})
    async with serving(milter, tmp_path) as endpoint, await Session.open(endpoint) as session:
        assert (await session.send(Letter(100))).verdict == b"a"
        assert "Header" not in milter.kinds()
        milter.answers = {codec.End: replies.PROGRESS + replies.add_header(b"X", b"y") + replies.ACCEPT}
        answer = await session.send(Letter(100))
    assert (answer.verdict, answer.changes) == (b"a", b"ph")


async def test_a_milter_that_hangs_up_is_told_from_one_that_answers(tmp_path):
    async def hang_up(reader, writer):
        await reader.read(1)
        writer.close()

    endpoint = Unix(str(tmp_path / "milter"))
    async with await asyncio.start_unix_server(hang_up, endpoint.path):
        with pytest.raises(Closed):
            await Session.open(endpoint)
