"""The main questions in one run: ``python -m bench``. Takes some minutes; ``--quick`` gives a rough answer in one.

``python -m bench providers`` asks what each provider costs and what riding together gains, ``… events`` how fast events become
notifications and ``… rendering`` what rendering costs; all three are parts of the whole run.
``python -m bench fairness`` what a quiet organization waits beside busy ones; ``python -m bench against PATH`` what a change
costs.
"""

from __future__ import annotations

import os
import platform

import click

from bench import accepting, against, batches, dispatch, events, fairness, providers, rendering
from bench.rig import servers


@click.group(invoke_without_command=True)
@click.pass_context
@click.option("--rounds", default=5, show_default=True, help="Rounds of every comparison.")
@click.option("--count", default=20_000, show_default=True, help="Notifications of one dispatch turn.")
@click.option("--celery-count", default=1_500, show_default=True, help="The same for Celery, which is slower; 0 leaves it out.")
@click.option("--organizations", default=50, show_default=True)
@click.option("--seed", default=1, show_default=True)
@click.option("--quick", is_flag=True, help="Two short rounds.")
def main(context: click.Context, rounds: int, count: int, celery_count: int, organizations: int, seed: int, quick: bool) -> None:
    """Compare the dispatcher with the floor and with Celery, measure accepting, events, rendering, providers and batches."""
    if context.invoked_subcommand is not None:
        return
    if quick:
        rounds, count, celery_count = 2, min(count, 6_000), min(celery_count, 500)
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}, seed {seed}")
    with servers() as up:
        accepting.main(up, rounds=rounds, batches=8 if quick else 40, singles=1_000 if quick else 5_000)
        dispatch.main(up, rounds=rounds, count=count, celery_count=celery_count, organizations=organizations, seed=seed)
    with servers() as up:
        events.main(up, rounds=rounds, batches=4 if quick else 16)
    rendering.main(rounds=rounds, count=500 if quick else 2_000)
    providers.costs(rounds=rounds, count=300 if quick else 1_000, seed=seed)
    with servers() as up:  # of their own: these organizations stay configured
        batches.main(up, rounds=rounds, count=6_000 if quick else 12_000, organizations=20, seed=seed)


main.add_command(fairness.command, "fairness")
main.add_command(against.command, "against")
main.add_command(providers.command, "providers")
main.add_command(events.command, "events")
main.add_command(rendering.command, "rendering")

if __name__ == "__main__":
    main()
