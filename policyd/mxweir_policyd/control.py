"""What the control socket answers to `mxweir explain`, which asks `{"explain": {attribute: value, …}}`."""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from mxweir.domains.match import Match
from mxweir.events import Observer, Trouble
from mxweir.facts import Facts
from mxweir.ratelimit.limits import Preview
from mxweir_policyd.answerer import Answerer
from mxweir_policyd.pipeline import Pipeline
from mxweir_policyd.protocol import ProtocolError, format_request, parse_request

T = TypeVar("T")


def facts_of(pipeline: Pipeline, attributes: Mapping[str, str]) -> Facts:
    """The facts of a request given as attributes; raises ProtocolError when they make none."""
    return pipeline.facts(parse_request(format_request(dict(attributes))[:-1]))


def explain(
    pipeline: Pipeline,
    facts: Facts,
    now: float,
    confirmed: Match | None = None,
    limits: Preview | None = None,
) -> dict[str, Any]:
    """What `Pipeline.explain` says, in JSON's types."""
    decision, trail = pipeline.explain(facts, now, confirmed, limits)
    return {
        "action": decision.reply,
        "verdict": decision.verdict,
        "check": decision.check,
        "rule": decision.rule,
        "trail": [step._asdict() for step in trail],
    }


class Explaining:
    """Explains requests; `describe` says in which state the relay domains are."""

    def __init__(self, answerer: Answerer, describe: Callable[[], str], observe: Observer) -> None:
        self._answerer = answerer
        self._describe = describe
        self._observe = observe

    async def answer(self, question: Any) -> dict[str, Any]:
        """What would be answered to these attributes, and why; raises TypeError for what are none."""
        if not isinstance(question, dict):
            raise TypeError("attributes are an object")
        attributes = {str(name): str(value) for name, value in question.items()}
        try:
            pipeline = self._answerer.pipeline
            facts, now = facts_of(pipeline, attributes), self._answerer.clock()
            confirmed = await self._confirmed(pipeline, facts)
            limits = await _word(partial(pipeline.preview_limits, facts, now))
            return explain(pipeline, facts, now, confirmed, limits) | {"domains": self._describe()}
        except ProtocolError as error:
            return {"error": str(error)}
        except UnicodeEncodeError:
            return {"error": "not a question: UnicodeEncodeError"}
        except Exception as error:  # noqa: BLE001 - who asks is told, whatever it is
            why = f"{type(error).__name__}: {error}"
            self._observe(Trouble("internal error in explaining", why, "error"))
            return {"error": f"internal error: {why}"}

    async def _confirmed(self, pipeline: Pipeline, facts: Facts) -> Match | None:
        domain = pipeline.unconfirmed(facts)
        return await _word(partial(self._answerer.confirm, domain)) if domain else None


async def _word(ask: Callable[[Callable[[T], None]], None]) -> T:
    """What a backend says, which calls back when it knows."""
    said: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    ask(said.set_result)
    return await said
