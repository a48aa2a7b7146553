"""What a soak prints: one table for people, one document for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from statistics import median

import attrs

from running import IMPATIENT
from soak.run import SETTINGS, Options, Outcome
from soak.verdict import EXAMPLES_MAX, LATE_S, RECOVERED_S, alone

SHOWN = (
    "lease_s",
    "request_deadline_s",
    "connect_deadline_s",
    "sweep_s",
    "drain_s",
    "retry_base_s",
    "retry_cap_s",
    "attempts_max",
)


def header(options: Options) -> str:
    """What is about to run, and how to run it again."""
    chosen = {name.removeprefix("DISPATCHER_").lower(): value for name, value in IMPATIENT.items()} | dict(SETTINGS)
    times = ", ".join(f"{name} {chosen[name]}" for name in SHOWN)
    until = [f"{options.minutes:g} minutes"]
    if options.kills_max != float("inf"):
        until.append(f"{options.kills_max:g} kills")
    return (
        f"soak: seed {options.seed}, {options.processes} processes, {options.organizations} organizations,"
        f" {options.rate_per_s:g} notifications/s, until {' or '.join(until)}\n"
        f"settings: {times}"
    )


def replay(options: Options) -> str:
    """The command that deals the same faults again."""
    kills = "" if options.kills_max == float("inf") else f" --kills {options.kills_max:g}"
    only = "".join(f" --only {kind.name.lower()}" for kind in options.only)
    recovery = "" if options.judge_recovery else " --recovery-unjudged"
    return (
        f"python -m soak --seed {options.seed} --minutes {options.minutes:g}{kills} --processes {options.processes}"
        f" --organizations {options.organizations} --rate {options.rate_per_s:g} --pace {options.pace:g}{only}{recovery}"
    )


def table(outcome: Outcome) -> str:
    """The findings, for people."""
    findings = outcome.findings
    recovered = [second for second in outcome.recoveries_s if second is not None]
    sending = [count for count in outcome.sending if count is not None]
    lines = [
        ("took", f"{outcome.took_s:,.0f} s; quiet {_seconds(outcome.quiet_after_s)} after the last fault"),
        ("kills", f"{len(outcome.under_way)}"),
        ("  calls under way at a kill", f"{_spread(outcome.under_way)} at the sandboxes, all processes together"),
        ("  of those the victim's", f"{_spread(sending)} on record, {sum(sending)} in all"),
        ("  throughput ≥ 90 % again after", _recoveries(recovered, len(outcome.recoveries_s))),
        ("  kills that stand alone", _alone(outcome)),
        *((f"  {took_s:.1f} s, beside", ", ".join(others)) for took_s, others in outcome.slowest if took_s > RECOVERED_S / 2),
        ("faults", f"{sum(outcome.faults.values())}"),
        *((f"  {name}", str(count)) for name, count in outcome.faults.items()),
        *((f"  {name}", f"{count} missed: there was nobody to hit") for name, count in outcome.missed.items()),
        ("starts", f"{outcome.starts}, of which came to nothing {sum(outcome.not_started.values())}"),
        *((f"  {count} ×", words) for words, count in outcome.not_started.items()),
        ("ended by themselves", f"{sum(outcome.ended_alone.values())}"),
        *((f"  {count} ×", words) for words, count in outcome.ended_alone.items()),
        ("answers to producers", ", ".join(f"{name}: {count:,}" for name, count in sorted(outcome.answers.items()))),
        *((f"  refused {name}", str(count)) for name, count in outcome.rejected.items()),
        (
            "accepted",
            f"{findings.accepted:,}, of which {findings.with_key:,} with a key; {findings.unanswered:,} more unanswered",
        ),
        ("delivered", f"{findings.delivered:,}"),
        ("failed", ", ".join(f"{reason}: {count:,}" for reason, count in sorted(findings.failed.items())) or "none"),
        ("lost", str(len(findings.faults["lost"]))),
        ("doubled with key", str(findings.doubled_with_key)),
        ("doubled without key", _doubles(outcome)),
        ("attempts marked unknown", f"{findings.unknowns:,}"),
        (f"late (over {LATE_S:g} s)", f"{findings.late:,}; {_latencies(findings.latencies_s)}"),
        ("transitions", f"{findings.steps:,} seen, {len(findings.faults['illegal transitions'])} illegal"),
        *((name, str(len(found))) for name, found in findings.faults.items() if name not in SAID),
    ]
    width = max(len(name) for name, _ in lines)
    text = "\n".join(f"{name:<{width}}  {value}" for name, value in lines)
    return f"{text}\n{''.join(_examples({**findings.faults, **outcome.missed_goals}))}{verdict(outcome)}"


SAID = ("lost", "doubled with key", "illegal transitions")
"""Faults that have a line of their own."""


def verdict(outcome: Outcome) -> str:
    """The last line."""
    if outcome.sound:
        return "sound"
    if outcome.findings.sound and set(outcome.missed_goals) == {"not enough kills"}:
        return f"not enough kills: sound so far; give it more --minutes, or: {replay(outcome.options)}"
    return f"NOT SOUND; the same faults again: {replay(outcome.options)}"


def document(outcome: Outcome) -> str:
    """The findings, for programs."""
    fields = attrs.asdict(outcome)
    fields["findings"]["latencies_s"] = {str(share): _at(outcome.findings.latencies_s, share) for share in (0.5, 0.9, 0.99, 1.0)}
    fields["options"]["kills_max"] = None if outcome.options.kills_max == float("inf") else outcome.options.kills_max
    return json.dumps(
        {**fields, "doubles_explained": outcome.doubles_explained, "sound": outcome.sound, "missed_goals": outcome.missed_goals},
        indent=2,
    )


def _doubles(outcome: Outcome) -> str:
    findings = outcome.findings
    unmarked = findings.doubled_without_key - findings.doubles_marked
    return (
        f"{findings.doubled_without_key}: {findings.doubles_marked} marked, {unmarked} not; on record at kills and stops,"
        f" and answers withheld: {outcome.doubles_explained}"
    )


def _examples(faults: Mapping[str, Sequence[str]]) -> Iterable[str]:
    for name, found in faults.items():
        for example in found[:EXAMPLES_MAX]:
            yield f"! {name}: {example}\n"
        if len(found) > EXAMPLES_MAX:
            yield f"! {name}: … {len(found) - EXAMPLES_MAX} more\n"


def _recoveries(recovered: Sequence[float], all_of_them: int) -> str:
    if not recovered:
        return "not seen"
    soon = sum(second <= RECOVERED_S for second in recovered)
    return (
        f"median {median(recovered):.1f} s, worst {max(recovered):.1f} s; within {RECOVERED_S:g} s: {soon} of {all_of_them}"
        f" ({all_of_them - len(recovered)} with nothing to compare, or not before the end)"
    )


def _alone(outcome: Outcome) -> str:
    """How soon those recovered that no other fault was near."""
    numbers = alone(outcome.reach)
    if not numbers:
        return "none, so none is judged"
    soon = sum((took_s := outcome.recoveries_s[i]) is not None and took_s <= RECOVERED_S for i in numbers)
    unjudged = "" if outcome.options.judge_recovery else ", not judged"
    return f"recovered within {RECOVERED_S:g} s: {soon} of {len(numbers)}{unjudged}"


def _spread(counts: Sequence[int]) -> str:
    return f"median {median(counts):g}, most {max(counts)}" if counts else "none"


def _latencies(seconds: Sequence[float]) -> str:
    if not seconds:
        return "none"
    return ", ".join(f"{name} {_at(seconds, share):.1f} s" for name, share in (("median", 0.5), ("99 %", 0.99), ("longest", 1.0)))


def _at(ordered: Sequence[float], share: float) -> float | None:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.1f} s"
