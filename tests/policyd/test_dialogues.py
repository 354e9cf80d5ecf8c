"""Plays dialogues/*.txt; dialogues/README.md says how to read and write them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mxweir.config import loads
from mxweir.domains.record import FROM_FILE
from mxweir.events import Decision
from mxweir.ratelimit import snapshot
from mxweir.testing import SettableClock
from mxweir.units import parse_duration
from mxweir_ops.lab.asking import USUAL
from mxweir_policyd.pipeline import Pipeline
from mxweir_policyd.protocol import RequestReader, format_reply
from mxweir_policyd.relaydomains.replica import Replica
from mxweir_policyd.relaydomains.sources.file import read_domains
from mxweir_policyd.worker import build_pipeline

HERE = Path(__file__).parent / "dialogues"
FILES = sorted(HERE.glob("*.txt"))
BEGINNING = 1_800_000_000.0

_ATTRIBUTE = re.compile(r'\s+([a-z_]+)=("[^"]*"|\S*)')
_ASK = re.compile(rf"ask(?: (\d+) times)?((?:{_ATTRIBUTE.pattern})*)")
_BYTE = re.compile(rb"\\x([0-9a-f]{2})")


class Line(NamedTuple):
    """A line of a dialogue file; `place` is FILE:LINE."""

    place: str
    text: str


class Section(NamedTuple):
    """What stands below a line `--- kind`."""

    kind: str
    lines: list[Line]


def sections(path: Path) -> Iterator[Section]:
    """Cut a file into its sections."""
    section = Section("", [])
    for number, text in enumerate(path.read_text().splitlines(), 1):
        if text.startswith("--- "):
            yield section
            section = Section(text.removeprefix("--- ").strip(), [])
        elif not text.startswith("#"):
            section.lines.append(Line(f"{path.name}:{number}", text.rstrip()))
    yield section


class Player:
    """A policy daemon's deciding part, with the questions and answers of one file."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._clock = SettableClock(BEGINNING)
        self._replica = Replica(directory)
        self._config = ""
        self._pipeline = self._build()
        self._messages = 0
        self.asked = 0

    def close(self) -> None:
        self._replica.close()

    def play(self, section: Section) -> None:
        """Carry out one section."""
        text = "\n".join(line.text for line in section.lines) + "\n"
        match section.kind:
            case "":
                assert not text.strip(), "only comments may stand before the first section"
            case "configuration":
                self._config = text
                former, self._pipeline = self._pipeline, self._build()
                self._pipeline.limits.adopt(former.limits, self._clock.now)
            case "domains":
                path = self._directory / "domains"
                path.write_text(text)
                self._replica.replace(FROM_FILE, read_domains(path, FROM_FILE).records, 1.0)
                self._replica.tick()
            case "dialogue":
                self._converse([line for line in section.lines if line.text])
            case _:
                pytest.fail(f"no such section: {section.kind}")

    def _build(self) -> Pipeline:
        return build_pipeline(loads(self._config), self._replica)

    def _converse(self, lines: list[Line]) -> None:
        while lines:
            place, text = lines.pop(0)
            if text.startswith("at "):
                self._clock.now = BEGINNING + parse_duration(text.removeprefix("at "))
                self._pipeline.limits.tick(self._clock.now)
                self._replica.tick()
            elif text == "restart":
                self._restart()
            elif text == "table unreadable":
                self._replica.close()
                self._replica.tick()
            elif text == "request":
                pasted = dict(line.split("=", 1) for line in self._pasted(lines))
                self._hear([pasted], lines)
            elif match := _ASK.fullmatch(text):
                self._hear([self._asked(match[2]) for _ in range(int(match[1] or 1))], lines)
            else:
                pytest.fail(f"{place}: not understood: {text}")

    @staticmethod
    def _pasted(lines: list[Line]) -> Iterator[str]:
        while lines and "=" in lines[0].text and not lines[0].text.startswith("->"):
            yield lines.pop(0).text

    def _asked(self, written: str) -> dict[str, str]:
        self._messages += 1
        given = {match[1]: match[2].strip('"') for match in _ATTRIBUTE.finditer(written)}
        return USUAL | {"instance": f"message.{self._messages}"} | given

    def _hear(self, asked: list[dict[str, str]], lines: list[Line]) -> None:
        assert lines, "a question without an answer at the end"
        place, text = lines.pop(0)
        assert text.startswith("-> "), f"{place}: an answer should stand here: -> …"
        wanted = text.removeprefix("-> ")
        fields = lines.pop(0).text if lines and lines[0].text.startswith("   ") else ""
        for number, attributes in enumerate(asked, 1):
            decision = self._decide(attributes, place)
            which = f"{place}: answer {number} of {len(asked)}"
            agrees = decision.reply == wanted or (
                wanted.endswith("…") and decision.reply.startswith(wanted[:-1])
            )
            assert agrees, f"{which} should be\n{wanted}\nbut is\n{decision.reply}"
            said = _as_logged(decision)
            for match in _ATTRIBUTE.finditer(fields):
                assert said[match[1]] == match[2].strip('"'), f"{which}: {match[1]}"

    def _decide(self, attributes: dict[str, str], place: str) -> Decision:
        lines = {"request": "smtpd_access_policy"} | attributes
        raw = "".join(f"{name}={value}\n" for name, value in lines.items()).encode() + b"\n"
        (request,) = RequestReader().feed(_BYTE.sub(lambda match: bytes.fromhex(match[1].decode()), raw))
        facts = self._pipeline.facts(request)
        explained, again = (self._pipeline.explain(facts, self._clock.now).decision for _ in range(2))
        decision = self._pipeline.decide(facts, self._clock.now)
        assert explained == again, f"{place}: mxweir explain changed something"
        assert explained == decision._replace(observed=explained.observed), (
            f"{place}: mxweir explain says {explained}"
        )
        assert format_reply(decision.reply)
        self.asked += 1
        return decision

    def _restart(self) -> None:
        path = self._directory / "limits.state"
        snapshot.write(path, self._pipeline.limits, self._clock.now)
        self._pipeline = self._build()
        snapshot.read(path, self._pipeline.limits, self._clock.now)


def _as_logged(decision: Decision) -> dict[str, Any]:
    """A decision's fields by the names that they have in the log."""
    observed = "; ".join(f"{one.rule} {one.key} {one.figure}" for one in decision.observed)
    fields = decision._asdict() | {"used": decision.figure, "observed": observed}
    return {name: fields[name] for name in ("verdict", "check", "rule", "key", "used", "observed")}


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_every_dialogue_goes_as_it_is_written(path: Path, tmp_path: Path) -> None:
    player = Player(tmp_path)
    try:
        for section in sections(path):
            player.play(section)
    finally:
        player.close()
    assert player.asked, "a file without a question"
