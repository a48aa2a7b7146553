"""The command ``dispatcher``: its help, its sub-commands, and what a failure looks like at a terminal.

A sub-command is one function of a module in :mod:`dispatcher_http.commands`, listed in ``COMMANDS`` below. What it writes to
standard output is its result, fit for ``$(…)``; remarks go to standard error. A user's mistake or a server that is away ends in
one line and a status that is not zero, never in a traceback. A function that returns a number has chosen its own status.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress

import click

from dispatcher import __version__
from dispatcher.config import describe
from dispatcher.errors import DispatcherError

FAILED, INTERRUPTED = 1, 130

COMMANDS = {
    "serve": "dispatcher_http.commands.serve",
    "demo": "dispatcher_http.commands.demo",
    "sandbox": "dispatcher_http.commands.sandbox",
    "listen": "dispatcher_http.commands.listen",
    "migrate": "dispatcher_http.commands.migrate",
    "organizations": "dispatcher_http.commands.organizations",
    "keys": "dispatcher_http.commands.keys",
    "presets": "dispatcher_http.commands.presets",
    "credentials": "dispatcher_http.commands.credentials",
    "history": "dispatcher_http.commands.history",
    "setup": "dispatcher_http.commands.setup",
    "templates": "dispatcher_http.commands.templates",
    "rules": "dispatcher_http.commands.rules",
    "catalogues": "dispatcher_http.commands.catalogues",
    "users": "dispatcher_http.commands.users",
}
"""Name to module; the module's ``command`` is what runs. Imported when asked for, so that no command pays for another's."""


class Commands(click.Group):
    """The sub-commands, and every setting below the help text."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        found = importlib.import_module(COMMANDS[cmd_name]).command
        assert isinstance(found, click.Command)
        return found

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Settings, from the environment"):
            formatter.write_dl([(row.variable, f"{row.meaning} (default: {row.default})") for row in describe()], col_max=44)


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 130})
@click.version_option(__version__, prog_name="dispatcher")
def dispatcher() -> None:
    """Accepts notifications, delivers them through providers, and tells what became of them.

    Without DISPATCHER_POSTGRES_URL and DISPATCHER_REDIS_URL, a private Postgres and Valkey run in the data folder.
    """


def _faults(error: BaseException) -> Iterable[BaseException]:
    """What went wrong, of however many tasks."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _faults(inner)
    else:
        yield error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the process's exit status. Without ``arguments`` it is the whole process that is the command."""
    if arguments is None:
        from dispatcher_http.logs import describe_the_unhandled

        describe_the_unhandled()
    try:
        status = dispatcher.main(arguments, prog_name="dispatcher", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough. Python would complain once more when it flushes at exit.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (DispatcherError, BaseExceptionGroup) as error:
        faults = list(_faults(error))
        if all(isinstance(fault, KeyboardInterrupt) for fault in faults):
            click.echo("Interrupted.", err=True)
            return INTERRUPTED
        if not all(isinstance(fault, DispatcherError) for fault in faults):
            raise
        for line in dict.fromkeys(str(fault) for fault in faults):
            click.echo(f"Error: {line}", err=True)
        return FAILED
    return status if isinstance(status, int) else 0
