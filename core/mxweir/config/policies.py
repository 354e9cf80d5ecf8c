"""What is wrong with thresholds and policies of the milter that takes more than one key to see."""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from math import inf
from typing import Any

from mxweir.config.schema import Place, Problem
from mxweir.config.sections import Milter, MilterPolicy

DEFAULT = "default"
"""The name under which logs know what no policy changes."""

_ACTIONS = ("tag_at", "quarantine_at", "reject_at")


def problems(milter: Milter, policies: Iterable[tuple[int, MilterPolicy]]) -> Iterator[Problem]:
    """Every mistake of this kind in [milter] and its policies, which come with their places as written."""
    yield from _thresholds(milter, None, ("milter",))
    names: set[str] = set()
    domains: dict[str, str] = {}
    for index, policy in policies:
        place: Place = ("milter", "policy", index)
        yield from _name(policy, names, (*place, "name"))
        if policy.recipient_domain is None and policy.tenant is None:
            yield Problem(place, 'a policy says for whom: recipient_domain = "DOMAIN" or tenant = "TENANT"')
        for domain in policy.recipient_domain or ():
            if domain in domains:
                what = f'"{domain}" has the policy "{domains[domain]}" already, and the first one counts'
                yield Problem((*place, "recipient_domain"), what)
            domains.setdefault(domain, policy.name)
        yield from _thresholds(milter, policy, place)


def _name(policy: MilterPolicy, above: set[str], place: Place) -> Iterator[Problem]:
    if policy.name == DEFAULT:
        yield Problem(place, f'"{DEFAULT}" is the name of what holds for everybody else; choose another')
    elif policy.name in above:
        yield Problem(place, f'a policy named "{policy.name}" stands above; names are unique')
    above.add(policy.name)


def _thresholds(milter: Milter, policy: MilterPolicy | None, place: Place) -> Iterator[Problem]:
    """Thresholds out of order and a tag that is empty, told at a key that is written in this table.

    A policy that writes none of the keys in question repeats a mistake of [milter], told there.
    """

    def value(key: str) -> Any:
        own = getattr(policy, key, None)
        return getattr(milter, key) if own is None else own

    def written_here(key: str) -> bool:
        return policy is None or getattr(policy, key) is not None

    actions = [key for key in _ACTIONS if value(key) != inf]
    rewriting = ("tag_at", "rewrite_subject_at", "reject_at") if value("rewrite_subject_at") != inf else ()
    for low, high in (*pairwise(actions), *pairwise(rewriting)):
        if not (written_here(low) or written_here(high)):
            continue
        lower, higher = value(low), value(high)
        if lower > higher and written_here(high):
            what = f"{higher} lies below {low} = {lower}, which would never be reached"
            yield Problem((*place, high), what)
        elif lower > higher:
            what = f"{lower} lies above {high} = {higher} of [milter], and would never be reached"
            yield Problem((*place, low), what)
    tag = next(filter(written_here, ("subject_tag", "rewrite_subject_at")), "")
    if tag and rewriting and not value("subject_tag"):
        yield Problem((*place, tag), "the subject is rewritten, and there is no tag to put before it")
