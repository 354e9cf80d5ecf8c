"""What the tables of the milter's engines can get wrong among keys, and what is probably not meant."""

from collections.abc import Iterable, Iterator

from mxweir.config.readers import is_loopback
from mxweir.config.schema import Place, Problem
from mxweir.config.sections import Engine, Milter
from mxweir.endpoint import Endpoint, Inet, Unix


def problems(milter: Milter, engines: Iterable[tuple[int, Engine]]) -> Iterator[Problem]:
    """Every mistake in the engines, given with their places, that takes more than one key to see."""
    seen: dict[tuple[str, Endpoint], int] = {}
    for index, engine in engines:
        place: Place = ("milter", "engine", index)
        for address in engine.address:
            before = seen.setdefault((engine.type, address), index)
            if before != index or engine.address.count(address) > 1:
                yield Problem(
                    (*place, "address"), f"{address} is asked by milter.engine[{before + 1}] already"
                )
                break
        yield from _protection(engine, place)
    breaker = milter.breaker
    if breaker.slow_after is not None and breaker.slow_after > milter.deadline:
        yield Problem(
            ("milter", "breaker", "slow_after"), "lies above milter.deadline, which no call outlasts"
        )


def _protection(engine: Engine, place: Place) -> Iterator[Problem]:
    if engine.type != "rspamd":
        if engine.tls:
            yield Problem((*place, "tls"), "spamd is asked in the clear; only rspamd can be asked over TLS")
        if engine.password:
            yield Problem((*place, "password"), "spamd knows no password; only rspamd does")
    elif engine.tls and any(isinstance(address, Unix) for address in engine.address):
        yield Problem((*place, "tls"), "a unix socket needs no TLS; give it an engine of its own")
    if engine.ca is not None and not engine.tls:
        yield Problem((*place, "ca"), "means nothing without tls = true")


def warnings(milter: Milter) -> Iterator[str]:
    """Sentences about what works but surprises."""
    for position, engine in enumerate(milter.engine, 1):
        far = [at for at in engine.address if isinstance(at, Inet) and not is_loopback(at.host)]
        if engine.password and far and not engine.tls:
            yield f"milter.engine[{position}].password: goes to {far[0]} in the clear; see tls"
