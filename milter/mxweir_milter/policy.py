"""What is done with mail to whom, and what with mail to several. Pure.

Each recipient domain has a treatment: that of the first policy that names the
domain or its tenant, or else the default one. One scan has one result; judged by
each recipient's treatment it gives as many rulings, and the mildest is carried
out, because a milter can only answer for the message as a whole:

    scored     ham < tagged < tagged, subject rewritten < quarantined < rejected
    unscanned  accepted < deferred < quarantined

A deferred message comes back by itself, a held one waits for a person: so
deferring is the milder. Rulings that do the same are told apart by the place of
their policies, the default one's being the last. The order is total, hence the
mildest is the same in whatever order recipients come.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from mxweir.address import fold_domain, split
from mxweir.config import Milter, MilterPolicy
from mxweir.config.policies import DEFAULT
from mxweir.domains.match import parents
from mxweir_milter.verdict import Failed, Outcome, Result, Thresholds, judge

THRESHOLDS = ("tag_at", "rewrite_subject_at", "quarantine_at", "reject_at")
"""The settings that are thresholds."""

_SEVERITY = {Outcome.HAM: 0, Outcome.TAGGED: 1, Outcome.QUARANTINED: 2, Outcome.REJECTED: 3}
_UNSCANNED_SEVERITY = {"accept": 0, "defer": 1, "quarantine": 2}


@dataclass(frozen=True, slots=True)
class Treatment:
    """What is done with mail to one recipient; `place` is that of its policy in the configuration.

    `subject_tag` is put before the subject from `thresholds.rewrite_subject_at`
    on; `reject_text` is the refusal's; `unscanned` is accept, defer or quarantine.
    """

    name: str = DEFAULT
    place: int = 0
    thresholds: Thresholds = field(default_factory=Thresholds)
    subject_tag: str = "[SPAM]"
    reject_text: str = "Message refused as spam"
    unscanned: str = "accept"

    def __hash__(self) -> int:
        """That of its name: to each recipient's treatment belongs a look at those that the message has."""
        return hash(self.name)

    def spared(self, rule: str) -> "Treatment":
        """The same for a recipient whom an entry of the access list allows: marked at most."""
        return replace(self, name=rule, thresholds=Thresholds(self.thresholds.tag_at), unscanned="accept")


@dataclass(frozen=True, slots=True)
class Rule:
    """One policy: its treatment, and whose mail gets it.

    `domains` are folded; one with a dot in front stands for itself and all below.
    """

    treatment: Treatment
    domains: tuple[str, ...] = ()
    tenants: tuple[str, ...] = ()


class Treatments:
    """Finds the treatment of a recipient, at a cost that does not grow with the number of policies.

    `tenant_of` gives the tenant of a folded domain, or ""; it is asked only where a policy names one.
    """

    def __init__(
        self, default: Treatment, rules: Sequence[Rule] = (), tenant_of: Callable[[str], str] = lambda _: ""
    ) -> None:
        self.default = default
        self._domains: dict[str, Treatment] = {}
        self._trees: dict[str, Treatment] = {}
        self._tenants: dict[str, Treatment] = {}
        self._tenant_of = tenant_of
        for rule in sorted(rules, key=lambda rule: rule.treatment.place):
            for name in rule.domains:
                (self._trees if name.startswith(".") else self._domains).setdefault(
                    name.lstrip("."), rule.treatment
                )
            for tenant in rule.tenants:
                self._tenants.setdefault(tenant, rule.treatment)

    def of(self, recipient: str) -> Treatment:
        """The treatment of mail to an address."""
        if not (self._domains or self._trees or self._tenants):
            return self.default
        domain = fold_domain(split(recipient)[1])
        return min(self._matching(domain), key=_place, default=self.default)

    def _matching(self, domain: str) -> Iterable[Treatment]:
        if found := self._domains.get(domain):
            yield found
        if self._trees:
            for name in (domain, *parents(domain)):
                if found := self._trees.get(name):
                    yield found
        if self._tenants and (found := self._tenants.get(self._tenant_of(domain))):
            yield found


def treatments_of(settings: Milter, tenant_of: Callable[[str], str]) -> Treatments:
    """The treatments that a configuration describes: what a policy leaves out is as for everybody."""
    rules = [
        Rule(_treatment(settings, policy, place), policy.recipient_domain or (), policy.tenant or ())
        for place, policy in enumerate(settings.policy)
    ]
    return Treatments(_treatment(settings, None, len(rules)), rules, tenant_of)


def _treatment(settings: Milter, policy: MilterPolicy | None, place: int) -> Treatment:
    def value(key: str) -> Any:
        own = getattr(policy, key, None)
        return getattr(settings, key) if own is None else own

    return Treatment(
        name=policy.name if policy else DEFAULT,
        place=place,
        thresholds=Thresholds(**{key: value(key) for key in THRESHOLDS}),
        subject_tag=value("subject_tag"),
        reject_text=value("reject_text"),
        unscanned=value("unscanned"),
    )


def _place(treatment: Treatment) -> int:
    return treatment.place


class Ruling(NamedTuple):
    """What becomes of a message by one treatment; made by `ruling`."""

    outcome: Outcome
    treatment: Treatment
    rewrites_subject: bool = False
    unscanned: str = "accept"
    """For an unscanned message: accept, defer or quarantine."""

    @property
    def action(self) -> str:
        """One word for it."""
        if self.outcome is Outcome.UNSCANNED:
            return {"accept": "accepted", "defer": "deferred", "quarantine": "quarantined"}[self.unscanned]
        return "rewritten" if self.rewrites_subject else self.outcome.value

    @property
    def rank(self) -> tuple[int, bool, int, str]:
        """Its place in the order from mild to severe; no two rulings on one result share it.

        A policy's place is its own, and beside a policy stands at most its spared form, by another name.
        """
        scale = _UNSCANNED_SEVERITY[self.unscanned]
        severity = _SEVERITY.get(self.outcome, scale)
        return severity, self.rewrites_subject, self.treatment.place, self.treatment.name


def ruling(result: Result, treatment: Treatment) -> Ruling:
    """Judge a result by one treatment."""
    outcome = judge(result, treatment.thresholds)
    if isinstance(result, Failed):
        return Ruling(outcome, treatment, False, "accept" if result.reason.passes else treatment.unscanned)
    rewrites = result.score >= treatment.thresholds.rewrite_subject_at
    return Ruling(outcome, treatment, rewrites and bool(treatment.subject_tag))


def milder(one: Ruling, other: Ruling) -> Ruling:
    """The milder of two rulings on one result: associative, commutative, idempotent."""
    return one if one.rank <= other.rank else other


def decide(result: Result, treatments: Iterable[Treatment]) -> tuple[Ruling, tuple[Ruling, ...]]:
    """The mildest ruling, and those that would have done more, the severest first.

    There must be at least one treatment.
    """
    rulings = [ruling(result, each) for each in treatments]
    if len(rulings) > 1:  # hardly ever: several recipients with different treatments
        rulings.sort(key=lambda each: each.rank)
    mildest, *others = rulings
    return mildest, tuple(each for each in reversed(others) if each.rank[:2] > mildest.rank[:2])
