"""What questions cost Redis: by its own count, and by the kernel's."""

from dataclasses import dataclass

from mxweir_bench import usage
from mxweir_ops.lab.redis import Redis


@dataclass(frozen=True, slots=True)
class Count:
    """What one Redis has done so far: script calls, microseconds in them, its process's CPU seconds."""

    calls: int
    script_us: int
    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one question: microseconds in the script, and of the process; questions in a call."""

    script_us: float
    cpu_us: float
    questions_a_call: float


def count(redis: Redis) -> Count:
    """What it has done so far (redis.io, INFO: commandstats)."""
    told = redis.info("commandstats").get("cmdstat_evalsha", "calls=0,usec=0")
    figures = dict(part.split("=") for part in told.split(","))
    return Count(int(figures["calls"]), int(figures["usec"]), usage.cpu_seconds([pid(redis)]))


def pid(redis: Redis) -> int:
    """Its process."""
    return int(redis.info("server")["process_id"])


def cost(before: Count, after: Count, questions: int) -> Cost:
    """Of one of the questions that were asked between; ValueError when nothing was asked."""
    if after.calls == before.calls or not questions:
        raise ValueError("Redis was asked nothing")
    return Cost(
        (after.script_us - before.script_us) / questions,
        1e6 * (after.cpu_seconds - before.cpu_seconds) / questions,
        questions / (after.calls - before.calls),
    )
