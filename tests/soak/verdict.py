"""What a soak has to answer for, computed from what was seen from outside. Pure: evidence in, findings out.

Nothing of the dispatcher is imported here or in :mod:`soak.checker`: a rule that was misunderstood there must not be what checks
it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from attrs import field, frozen

LATE_S = 60.0
"""From accepted to final. More than what mends itself takes with a soak's settings: a lease, or the 30 seconds after which a
queued row is looked for in Redis, and some sweeps."""
FINAL = frozenset({"delivered", "failed"})
EXAMPLES_MAX = 5


@frozen
class Accepted:
    """One line of the producers' book."""

    id: str
    organization: str
    key: str | None
    at: float


@frozen
class Row:
    """One notification as Postgres has it in the end. ``dead`` is the reason of its dead letter."""

    id: str
    organization: str
    status: str
    attempts: int
    attempts_max: int
    unknowns: int
    took_s: float
    dead: str | None = None


@frozen
class Step:
    """One change of a row, as a trigger saw it. An insert has no ``before``, a delete no ``after``."""

    id: str
    before: str | None
    after: str | None
    attempts_before: int
    attempts_after: int
    unknowns_before: int
    unknowns_after: int


@frozen
class Evidence:
    """Everything the verdict is made from."""

    accepted: Sequence[Accepted]
    rows: Mapping[str, Row]
    effects: Mapping[str, Mapping[str, int]]
    """By provider: effects by notification id."""
    honours: Mapping[str, bool]
    """By provider: whether it honours idempotency keys."""
    steps: Iterable[Step]
    leftovers: Mapping[str, Sequence[str]]
    """What Redis still holds when everything should be over: by key."""
    forgotten: int = 0
    """Names a sandbox let go: with any, the ledger proves nothing."""


@frozen
class Findings:
    """Each fault with examples; ``worst`` decides the exit status."""

    accepted: int
    with_key: int
    delivered: int
    failed: Mapping[str, int]
    unanswered: int
    """Rows nobody was told of: the producer's answer was lost."""
    doubled_with_key: int
    doubled_without_key: int
    doubles_marked: int
    unknowns: int
    late: int
    latencies_s: Sequence[float] = field(repr=False)
    steps: int
    faults: Mapping[str, Sequence[str]]
    """What must not be: lost, doubled with key, unmarked doubles, illegal transitions, leftovers … by name, all of them."""

    @property
    def sound(self) -> bool:
        """Whether nothing was found that must not be."""
        return not any(self.faults.values())


RECOVERED_S = 10.0
"""From a kill that stands alone until throughput is as good as before: more than that is too slow."""


@frozen
class Reach:
    """What a run was to reach beside soundness. Times are in order and in s of one clock, wherever it begins."""

    doubled_without_key: int
    doubles_explained: int
    """Attempts on record at kills and stops, and answers withheld."""
    kills_s: Sequence[float]
    recoveries_s: Sequence[float | None]
    """Of each kill; None where there was nothing to compare, or no end was seen."""
    others: Sequence[tuple[float, float]]
    """When every other fault began and was over."""
    kills_min: int = 0


def alone(reach: Reach) -> list[int]:
    """The numbers of the kills that had no other fault, of any kind, from ten seconds before until ten seconds after."""
    kills = [(at, at) for at in reach.kills_s]
    return [
        i
        for i, at in enumerate(reach.kills_s)
        if not any(
            begun <= at + RECOVERED_S and over >= at - RECOVERED_S for begun, over in [*kills[:i], *kills[i + 1 :], *reach.others]
        )
    ]


def missed(reach: Reach, *, judge_recovery: bool = True) -> dict[str, list[str]]:
    """Of what a run was to reach, what it did not: by name, with words. Empty when it reached everything."""
    faults: dict[str, list[str]] = {}
    if reach.doubled_without_key > reach.doubles_explained:
        faults["more doubles than explained"] = [f"{reach.doubled_without_key} doubles, {reach.doubles_explained} explained"]
    if len(reach.kills_s) < reach.kills_min:
        faults["not enough kills"] = [f"{len(reach.kills_s)} of {reach.kills_min}"]
    took = [(i, reach.recoveries_s[i]) for i in alone(reach)] if judge_recovery else []
    if slow := [f"kill {i + 1} took {took_s:.1f} s" for i, took_s in took if took_s is not None and took_s > RECOVERED_S]:
        faults["slow recovery"] = slow
    return faults


FAULTS = (
    "lost",
    "doubled with key",
    "unmarked effects",
    "illegal transitions",
    "left in Redis",
    "sent without a row",
    "one key, two notifications",
    "forgotten by the ledger",
)


def judge(evidence: Evidence) -> Findings:
    """The findings."""
    faults: dict[str, list[str]] = {name: [] for name in FAULTS}
    if evidence.forgotten:
        faults["forgotten by the ledger"].append(f"{evidence.forgotten} names")
    total: Counter[str] = Counter()
    for effects in evidence.effects.values():
        total.update(effects)
    faults["lost"] += losses(evidence, total)
    faults["one key, two notifications"] += two_for_one(evidence.accepted)
    doubled_with_key = doubled_without_key = doubles_marked = 0
    for provider, effects in evidence.effects.items():
        for id, count in effects.items():
            row = evidence.rows.get(id)
            if row is None:
                faults["sent without a row"].append(f"{id}: {count} effects at {provider}")
                continue
            explained = row.unknowns + (row.status == "delivered")
            if count > explained:
                faults["unmarked effects"].append(
                    f"{id}: {count} effects at {provider}, but it is {row.status} with {row.unknowns} unknowns"
                )
            if count < 2:
                continue
            if evidence.honours[provider]:
                doubled_with_key += count - 1
                faults["doubled with key"].append(f"{id}: {count} effects at {provider}")
            else:
                doubled_without_key += count - 1
                doubles_marked += min(count - 1, row.unknowns)
    steps = 0
    held: dict[str, str | None] = {}
    for step in evidence.steps:
        steps += 1
        if fault := illegal(step, held.get(step.id)):
            faults["illegal transitions"].append(f"{step.id}: {fault}")
        held[step.id] = step.after
    for row in evidence.rows.values():
        if row.attempts > row.attempts_max:
            faults["illegal transitions"].append(f"{row.id}: {row.attempts} attempts of {row.attempts_max}")
    for key, ids in evidence.leftovers.items():
        faults["left in Redis"] += [f"{key}: {id}" for id in ids]
    final = [row for row in evidence.rows.values() if row.status in FINAL]
    promised = {line.id for line in evidence.accepted}
    return Findings(
        accepted=len(promised),
        with_key=len({line.id for line in evidence.accepted if line.key is not None}),
        delivered=sum(row.status == "delivered" for row in final),
        failed=Counter(row.dead or "no dead letter" for row in final if row.status == "failed"),
        unanswered=len(evidence.rows.keys() - promised),
        doubled_with_key=doubled_with_key,
        doubled_without_key=doubled_without_key,
        doubles_marked=doubles_marked,
        unknowns=sum(row.unknowns for row in evidence.rows.values()),
        late=sum(row.took_s > LATE_S for row in final),
        latencies_s=sorted(row.took_s for row in final),
        steps=steps,
        faults=faults,
    )


def losses(evidence: Evidence, effects: Mapping[str, int]) -> Iterable[str]:
    """What was promised and did not come to an end, or to an end that is not true."""
    for line in {line.id: line for line in evidence.accepted}.values():
        row = evidence.rows.get(line.id)
        if row is None:
            yield f"{line.id}: accepted, and not in Postgres"
        elif row.status not in FINAL:
            yield f"{line.id}: still {row.status}"
        elif row.organization != line.organization:
            yield f"{line.id}: accepted for {line.organization}, stored for {row.organization}"
    for row in evidence.rows.values():
        if row.status == "delivered" and not effects.get(row.id):
            yield f"{row.id}: delivered, and no provider has seen it"
        elif row.status == "failed" and row.dead is None:
            yield f"{row.id}: failed without a dead letter"


def two_for_one(accepted: Iterable[Accepted]) -> Iterable[str]:
    """Keys that were answered with more than one notification."""
    ids: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for line in accepted:
        if line.key is not None:
            ids[line.organization, line.key].add(line.id)
    for (organization, key), named in ids.items():
        if len(named) > 1:
            yield f"{organization}/{key}: {', '.join(sorted(named))}"


LEGAL = frozenset(
    {
        (None, "queued"),
        ("queued", "sending"),
        ("sending", "queued"),
        ("sending", "delivered"),
        ("sending", "failed"),
        ("queued", "failed"),  # expired
    }
)
"""Nobody puts dead letters back during a soak, and nothing is cleaned up, so what is final stays as it is."""


def illegal(step: Step, held: str | None) -> str:
    """What is wrong with a step; ``held`` is the status the step before it left behind. Empty when it is legal."""
    if step.before != held:
        return f"was {held}, and changes from {step.before}"
    if step.after is None:
        return "deleted"
    attempts, unknowns = step.attempts_after - step.attempts_before, step.unknowns_after - step.unknowns_before
    change = f"{step.before} → {step.after}, attempts {attempts:+d}, unknowns {unknowns:+d}"
    if step.before == step.after:
        return change if (attempts, unknowns) != (0, 0) else ""
    if (step.before, step.after) not in LEGAL:
        return change
    allowed = {"sending": (1,), "queued": (0, -1), "failed": (0, -1)}.get(step.after, (0,))
    if attempts not in allowed or step.attempts_after < 0:
        return change
    return change if unknowns not in ((0, 1) if step.before == "sending" else (0,)) else ""
