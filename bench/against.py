"""Does a change cost throughput? This checkout and another one work in turns: ``python -m bench against ../before``.

Three questions, one after the other: dispatching, accepting in batches of 500, accepting one by one; ``--of`` asks fewer.

Each checkout runs its own dispatcher on servers of its own, which stand idle while the other has its turn. The order alternates,
the ratio is taken round by round, so a machine whose speed drifts does both the same harm.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import click

from bench.rig import spread

HERE = Path(__file__).parent.parent

# Runs in either checkout, with nothing but what both have had since there was a bench.
_TURNS = """
import sys
from contextlib import ExitStack
import orjson
from bench import accepting, dispatch
from bench.rig import Load, contestant, servers
question, *numbers = sys.argv[1:]
count, organizations, seed = map(int, numbers)
with servers() as up, ExitStack() as stack:
    load = Load(up, organizations, seed) if question == "dispatch" else None
    subject = stack.enter_context(contestant([sys.executable, "-m", "bench.subject"], up.environment()))
    if question == "dispatch":
        contest = dispatch.dispatcher_contest(subject, load, count)
        take = lambda: dispatch.run_turn(load, contest)
    else:
        url = subject.first_line.split()[1]
        key = accepting.set_up(up, url)
        size, connections = (accepting.BATCH_ITEMS, 4) if question == "batches" else (1, 32)
        items = [accepting.item(number) for number in range(size)]
        body = orjson.dumps({"items": items} if size > 1 else items[0])
        requests = [accepting.request(url, key, body)] * max(1, count // size)
        take = lambda: accepting.turn(up, url, subject.process.pid, requests, size, connections)
    take()
    print("ready", flush=True)
    for _ in sys.stdin:
        turn = take()
        print(turn.rate, turn.cpu_us["own"], turn.cpu_us["postgres"], flush=True)
"""
QUESTIONS = {"dispatch": "Dispatch", "batches": "Accept in batches of 500", "singles": "Accept one by one"}


class Side(NamedTuple):
    """One checkout at work, and what its turns gave: notifications a second, CPU µs of its own, of its Postgres."""

    process: subprocess.Popen[str]
    turns: list[tuple[float, float, float]]

    def read(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise click.ClickException("a checkout could not take its turn; what it said is above")
        return line

    def take_turn(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        rate, own_us, postgres_us = map(float, self.read().split())
        self.turns.append((rate, own_us, postgres_us))


@contextmanager
def side(checkout: Path, question: str, *numbers: int) -> Iterator[Side]:
    """Servers and dispatcher of a checkout, warm."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(checkout), str(checkout / "http")))}
    command = [sys.executable, "-W", "ignore", "-c", _TURNS, question, *map(str, numbers)]
    process = subprocess.Popen(command, cwd=checkout, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        begun = Side(process, [])
        while begun.read() != "ready\n":
            pass
        yield begun
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait()


@click.command()
@click.argument("before", type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path))
@click.option("--rounds", default=11, show_default=True)
@click.option("--count", default=10_000, show_default=True, help="Notifications of one turn.")
@click.option("--organizations", default=50, show_default=True, help="Among which dispatching is shared.")
@click.option("--seed", default=1, show_default=True)
@click.option("--of", "questions", type=click.Choice(list(QUESTIONS)), multiple=True, help="Ask this only; may be repeated.")
def command(before: Path, rounds: int, count: int, organizations: int, seed: int, questions: tuple[str, ...]) -> None:
    """Compare dispatching and accepting of this checkout with those of another one, BEFORE."""
    for question in questions or QUESTIONS:
        _compare(question, before, rounds, count, organizations, seed)


def _compare(question: str, before: Path, rounds: int, count: int, organizations: int, seed: int) -> None:
    with ExitStack() as stack:
        old = stack.enter_context(side(before, question, count, organizations, seed))
        new = stack.enter_context(side(HERE, question, count, organizations, seed))
        for number in range(rounds):
            for one in (old, new) if number % 2 == 0 else (new, old):
                one.take_turn()
    among = f", {organizations} organizations" if question == "dispatch" else ""
    print(f"\n{QUESTIONS[question]}: {rounds} rounds of {count:,} notifications each{among}; median [least - most]")
    print(f"{'':<10}{'notifications/s':>26}   CPU µs per notification")
    for name, turns in (("before", old.turns), ("now", new.turns)):
        rates, own_us, postgres_us = zip(*turns, strict=True)
        print(f"{name:<10}{spread(rates):>26}   own {spread(own_us)}  postgres {spread(postgres_us)}")
    for what, column in (("throughput", 0), ("CPU of its own", 1), ("CPU of Postgres", 2)):
        ratios = [ours[column] / theirs[column] for ours, theirs in zip(new.turns, old.turns, strict=True)]
        print(f"now / before, {what}: {spread(ratios, 2)}")
