"""How fast are notifications dispatched: the floor, the dispatcher and Celery, in turns, on the same servers and rows."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack

from attrs import frozen

from bench.rig import API_KEY, Contestant, Load, Servers, Turn, accounts, contestant, spread

CELERY_PROCESSES = 4
DEADLINE_S = 120.0


@frozen
class Contest:
    """One contestant: how much it gets in a turn, and how its turn is begun once rows and ids are laid out."""

    name: str
    count: int
    pid: int
    queue: Callable[[dict[str, list[str]]], None]
    begin: Callable[[], None]


def run_turn(load: Load, contest: Contest) -> Turn:
    """Lay out, begin, wait until the last outcome is recorded, check."""
    laid = load.lay_out(contest.count)
    contest.queue(laid)  # type: ignore[arg-type]
    with accounts({"own": contest.pid, **load.servers.pids}) as spent:
        began_s = time.monotonic()
        contest.begin()
        load.wait_done(contest.count, DEADLINE_S)
        seconds = time.monotonic() - began_s
    load.check(contest.count)
    return Turn(contest.count, seconds, {name: cpu * 1e6 / contest.count for name, cpu in spent.items()})


def celery_contest(stack: ExitStack, servers: Servers, count: int) -> Contest:
    """A Celery worker that is up and waits for its queue to be added."""
    environment = servers.environment()
    socket_path = servers.redis_url.removeprefix("unix://").partition("?")[0]
    environment["BENCH_BROKER_URL"] = os.environ["BENCH_BROKER_URL"] = f"redis+socket://{socket_path}?virtual_host=1"
    environment["BENCH_SEND_URL"] = f"{servers.sandbox_url}/v3/mail/send"
    environment["BENCH_API_KEY"] = API_KEY
    from bench.celery_worker import app, send

    command = [sys.executable, "-W", "ignore", "-m", "bench.celery_ready", "--concurrency", str(CELERY_PROCESSES)]
    worker = stack.enter_context(contestant(command, environment))

    def queue(laid: dict[str, list[str]]) -> None:
        app.control.cancel_consumer("bench", reply=True, limit=1)
        app.control.purge()
        with app.producer_pool.acquire() as producer:
            for ids in laid.values():
                for id in ids:
                    send.apply_async((id,), queue="bench", producer=producer)

    def begin() -> None:
        app.control.add_consumer("bench")

    return Contest("Celery + requests", count, worker.process.pid, queue, begin)


def floor_contest(floor: Contestant, load: Load, count: int) -> Contest:
    return Contest("floor", count, floor.process.pid, load.queue, lambda: floor.say("go"))  # type: ignore[arg-type]


def dispatcher_contest(dispatcher: Contestant, load: Load, count: int) -> Contest:
    return Contest("dispatcher", count, dispatcher.process.pid, load.queue, load.wake)  # type: ignore[arg-type]


def main(servers: Servers, *, rounds: int, count: int, celery_count: int, organizations: int, seed: int) -> dict[str, list[Turn]]:
    """Run ``rounds`` rounds of all three in turns and print the table."""
    load = Load(servers, organizations, seed)
    turns: dict[str, list[Turn]] = {}
    with ExitStack() as stack:
        environment = servers.environment()
        floor = stack.enter_context(contestant([sys.executable, "-m", "bench.floor"], environment))
        dispatcher = stack.enter_context(contestant([sys.executable, "-m", "bench.subject"], environment))
        contests = [floor_contest(floor, load, count), dispatcher_contest(dispatcher, load, count)]
        if celery_count:
            contests.append(celery_contest(stack, servers, celery_count))
        for contest in contests:  # a turn that does not count: connections, caches, prepared statements
            run_turn(load, contest)
        for number in range(rounds):
            for contest in contests if number % 2 == 0 else reversed(contests):
                turns.setdefault(contest.name, []).append(run_turn(load, contest))
    load.close()
    report(turns, organizations)
    return turns


def report(turns: dict[str, list[Turn]], organizations: int) -> None:
    """Print throughput, CPU by process, and the ratios round by round."""
    print(f"\nDispatch: {organizations} organizations, 600-byte bodies; median [least - most] of {len(turns['floor'])} rounds")
    print(f"{'':<20}{'notifications/s':>26}   CPU µs per notification")
    for name, rounds in turns.items():
        costs = "  ".join(f"{part} {spread([turn.cpu_us[part] for turn in rounds])}" for part in rounds[0].cpu_us)
        print(f"{name:<20}{spread([turn.rate for turn in rounds]):>26}   {costs}")
    for name, goal in (("floor", 0.6), ("Celery + requests", 10.0)):
        if name in turns:
            ratios = [ours.rate / theirs.rate for ours, theirs in zip(turns["dispatcher"], turns[name], strict=True)]
            print(f"dispatcher / {name}: {spread(ratios, 2)}   (to reach: {goal:g})")
    shares = [ours.cpu_us["own"] / theirs.cpu_us["own"] for ours, theirs in zip(turns["dispatcher"], turns["floor"], strict=True)]
    print(f"CPU of the dispatcher's process / CPU of the floor's: {spread(shares, 2)}")
    print("The floor takes one step after another; the dispatcher overlaps its steps, so its rate can exceed the floor's.")
