import asyncio
import threading
import time

import pytest

from mxweir.testing import SettableClock
from mxweir_milter.engines.names import Names, system_lookup


class Resolver:
    """A resolver that answers when it is let, and counts how often and from how many threads it is asked."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, host):
        self.asked.append(host)
        assert self.gate.wait(20)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def named(*answers):
    resolver, clock = Resolver(*answers), SettableClock()
    return Names(resolver, clock), resolver, clock


async def refreshed(names, host, wanted):
    """Ask until the refreshing in the background has brought what is wanted."""
    until = time.monotonic() + 20
    while await names.addresses(host) != wanted:
        assert time.monotonic() < until
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_an_address_is_not_looked_up(address):
    names, resolver, _ = named(OSError("not asked"))
    assert await names.addresses(address) == (address,)
    assert not resolver.asked


async def test_a_name_is_looked_up_once_for_all_who_wait():
    names, resolver, _ = named(["192.0.2.1", "192.0.2.2"])
    resolver.gate.clear()
    waiting = [asyncio.create_task(names.addresses("engine.example")) for _ in range(100)]
    await asyncio.sleep(0)
    resolver.gate.set()
    assert await asyncio.gather(*waiting) == [["192.0.2.1", "192.0.2.2"]] * 100
    assert await names.addresses("engine.example") == ["192.0.2.1", "192.0.2.2"]
    assert resolver.asked == ["engine.example"]


async def test_a_lookup_that_hangs_can_be_given_up_and_leaves_one_thread_however_many_ask():
    names, resolver, _ = named(["192.0.2.1"])
    resolver.gate.clear()
    for _ in range(200):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.0001):
                await names.addresses("engine.example")
    assert not names._known["engine.example"].waiting
    resolver.gate.set()
    assert await names.addresses("engine.example") == ["192.0.2.1"]
    assert len(resolver.asked) == 1  # each thread asks once


async def test_an_old_answer_serves_while_a_newer_one_is_fetched():
    names, resolver, clock = named(["192.0.2.1"], ["192.0.2.9"])
    assert await names.addresses("engine.example") == ["192.0.2.1"]
    resolver.gate.clear()
    clock.advance(61)
    assert await names.addresses("engine.example") == ["192.0.2.1"]
    assert await names.addresses("engine.example") == ["192.0.2.1"]
    resolver.gate.set()
    await refreshed(names, "engine.example", ["192.0.2.9"])
    assert len(resolver.asked) == 2


async def test_what_was_last_known_holds_while_dns_is_away():
    names, resolver, clock = named(["192.0.2.1"], OSError("no answer"))
    assert await names.addresses("engine.example") == ["192.0.2.1"]
    for asked in range(2, 5):
        clock.advance(61)
        until = time.monotonic() + 20
        while len(resolver.asked) < asked or names._known["engine.example"].asking:
            assert time.monotonic() < until
            assert await names.addresses("engine.example") == ["192.0.2.1"]
            await asyncio.sleep(0.005)
        assert await names.addresses("engine.example") == ["192.0.2.1"]


async def test_a_name_that_is_not_known_is_an_error_at_once_and_asked_for_again_later():
    names, resolver, clock = named(OSError("no such host"), ["192.0.2.1"])
    for _ in range(10):
        with pytest.raises(OSError, match=r"engine\.example cannot be looked up: no such host"):
            await names.addresses("engine.example")
    assert len(resolver.asked) == 1
    clock.advance(6)
    assert await names.addresses("engine.example") == ["192.0.2.1"]


async def test_a_name_without_an_address_is_an_error():
    names, _, _ = named([])
    with pytest.raises(OSError, match="has no address"):
        await names.addresses("engine.example")


async def test_a_system_without_a_thread_to_spare_is_an_error_and_asked_again_later(monkeypatch):
    names, _, clock = named(["192.0.2.1"])
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", lambda _: (_ for _ in ()).throw(RuntimeError("no thread")))
        for _ in range(2):
            with pytest.raises(OSError, match="no thread"):
                await names.addresses("engine.example")
    clock.advance(6)
    assert await names.addresses("engine.example") == ["192.0.2.1"]


def test_it_serves_one_loop_after_the_other():
    names, resolver, clock = named(["192.0.2.1"], ["192.0.2.2"])
    resolver.gate.clear()

    async def give_up():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await names.addresses("engine.example")

    asyncio.run(give_up())
    resolver.gate.set()
    assert asyncio.run(names.addresses("engine.example")) == ["192.0.2.1"]
    assert clock() == SettableClock().now


def test_the_systems_resolver_knows_this_host():
    assert set(system_lookup("localhost")) & {"127.0.0.1", "::1"}
