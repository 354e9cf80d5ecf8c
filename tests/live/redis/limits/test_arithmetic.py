"""The table of the arithmetic, against Redis."""

import math
import tomllib
from pathlib import Path
from typing import Any

import pytest

from mxweir.config import LimitRule
from mxweir.ratelimit.arithmetic import ROUNDING
from mxweir.ratelimit.rate import Rate
from mxweir.testing import question

CASES: list[dict[str, Any]] = tomllib.loads(
    (Path(__file__).parents[3] / "core/ratelimit/arithmetic.toml").read_text()
)["case"]


def rule(case: dict[str, Any]) -> LimitRule:
    rate = Rate(case["rate"][0], float(case["rate"][1]))
    if case["kind"] == "distinct":
        return LimitRule(name="l", key=("recipient",), rate=rate, distinct="sender")
    return LimitRule(
        name="l",
        key=("recipient",),
        rate=rate,
        unit="byte",
        burst=case.get("burst"),
        window=case["kind"] == "window",
    )


def asked(case: dict[str, Any], what: Any):
    if case["kind"] == "distinct":
        return question(sender=f"{what}@a.example")
    return question(state="END-OF-MESSAGE", size=str(what))


@pytest.mark.parametrize("start", [0, 86400 * 250])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_redis_holds_to_the_arithmetics_table(case, start, servers, counted):
    limits = counted(rule(case))
    for number, (time, what, used, wait) in enumerate(case["steps"], 1):
        limits.at(round((start + time) * 1e6))
        facts = asked(case, what)
        figure = limits.figures(facts)["l"]
        assert figure.split("/")[0] == str(math.ceil(used - ROUNDING)), f"step {number}"
        (outcome,) = limits.anew(facts)
        refusal = outcome.refusal
        assert bool(refusal) == bool(wait), f"step {number}"
        if refusal:
            assert refusal.wait == pytest.approx(wait, abs=1e-3), f"step {number}"
            assert refusal.figure == figure
