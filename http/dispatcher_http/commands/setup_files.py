"""What ``dispatcher setup``, ``templates``, ``rules`` and ``catalogues`` have in common: pull, diff and push of a folder.

Exit statuses are those of ``diff``: 0 when nothing differs or all is done, 1 when something differs or is refused, 2 for trouble.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
from attrs import frozen

from actors.store.api_keys import is_key
from dispatcher_http.commands.listen import KEY_VARIABLE, checked_url
from dispatcher_http.commands.organizations import checked_id
from dispatcher_http.files import folder
from dispatcher_http.files.remote import Failed, Moved, Refusal, Remote
from dispatcher_http.files.telling import change_lines, fault_lines, summary, visible
from dispatcher_http.files.tree import Files, Reading, Unwritable, files_of, is_ours, read_files

DIFFERENT, TROUBLE = 1, 2

_F = TypeVar("_F", bound=Callable[..., Any])


class Trouble(click.ClickException):
    """Nothing could be compared or done."""

    exit_code = TROUBLE


class Refused(click.ClickException):
    """The folder has faults, all of which are on the screen; or somebody was quicker."""

    exit_code = DIFFERENT


@frozen
class Compared:
    """A folder beside what stands there. ``tag`` is that of what stands there."""

    document: Mapping[str, Any]
    tag: str
    report: Mapping[str, Any]
    before: Files
    after: Files

    def tell(self) -> None:
        """Print every difference."""
        for line in change_lines(self.report, self.before, self.after):
            click.echo(line)


def group(name: str, sections: Collection[str], what: str) -> click.Group:
    """The three commands for some sections of a set-up. ``what`` is what they are for people."""

    @click.group(name)
    def command() -> None: ...

    command.help = f"{what[0].upper()}{what[1:]} of an organization as files in a folder: see docs/files.md."

    @command.command("pull", help=f"Write {what} into DIR, and remove those of its files that are not there any more.")
    @_arguments
    def pull(folder_path: Path, remote: Remote) -> None:
        standing = _try(lambda: remote.read(sections))
        files = _try(lambda: files_of(standing.document, standing.default_locale))
        done = _try(lambda: folder.write(folder_path, sections, files, is_ours))
        for mark, paths in (("+", done.written), ("-", done.removed)):
            for path in paths:
                click.echo(f"{mark} {visible(path)}")
        click.echo(f"{len(files)} files, {len(done.written)} written, {len(done.removed)} removed.", err=True)

    @command.command("diff", help=f"Show what pushing {what} from DIR would change. The exit status is 1 if anything differs.")
    @_arguments
    @_PRUNE
    def diff(folder_path: Path, remote: Remote, prune: bool) -> int:
        compared = _compared(folder_path, remote, sections, prune)
        compared.tell()
        return DIFFERENT if compared.report["changed"] or compared.report["kept"] else 0

    @command.command("push", help=f"Make {what} what DIR says: all of it or, if anything is wrong with it, nothing.")
    @_arguments
    @_PRUNE
    @click.option("--yes", is_flag=True, help="Do not ask.")
    def push(folder_path: Path, remote: Remote, prune: bool, yes: bool) -> None:
        compared = _compared(folder_path, remote, sections, prune)
        compared.tell()
        if not compared.report["changed"]:
            click.echo("Nothing to push.", err=True)
            return
        if not yes and not _confirmed(f"Push to {remote.organization_id} at {remote.url}: {summary(compared.report)}?"):
            raise Refused("nothing was pushed")
        done = _try(lambda: remote.push(compared.document, compared.tag, dry_run=False))
        if isinstance(done, Refusal):
            raise Refused("; ".join(visible(detail) for _, detail in done.faults))
        click.echo(f"Pushed: {summary(done)}.", err=True)

    return command


def _arguments(command: _F) -> _F:
    """DIR, and where the organization is. The API key is read from the environment."""

    def called(dir: Path, url: str, org: str, **options: Any) -> Any:
        key = os.environ.get(KEY_VARIABLE, "").strip()
        if not is_key(key.encode()):
            raise Trouble(f"set {KEY_VARIABLE} to an API key with the scopes setup:read and, to push, setup:write")
        return command(folder_path=dir, remote=Remote(url, org, key), **options)

    decorated: Any = called
    decorated.__click_params__ = getattr(command, "__click_params__", [])
    for decorate in (
        click.option("--org", required=True, callback=checked_id, help="The organization's id."),
        click.option(
            "--url", default="http://127.0.0.1:8080", show_default=True, callback=checked_url, help="Where the dispatcher serves."
        ),
        click.argument("dir", type=click.Path(file_okay=False, path_type=Path)),
    ):
        decorated = decorate(decorated)
    made: _F = decorated
    return made


_PRUNE = click.option("--prune", is_flag=True, help="Delete what is there and not in DIR.")


def _compared(path: Path, remote: Remote, sections: Collection[str], prune: bool) -> Compared:
    """Ask what pushing would do. Raises Refused with every fault on the screen."""
    files = _try(lambda: folder.read(path, sections))
    standing = _try(lambda: remote.read(sections))
    reading = _try(lambda: read_files(files, sections, standing.default_locale, standing.document))
    if not reading.document and not reading.faults:
        raise Trouble(f"{path}: there is nothing of {', '.join(sorted(sections))} in it; pull first")
    document = {**reading.document, "prune": prune}
    report = _try(lambda: remote.push(document, standing.tag, dry_run=True))
    if isinstance(report, Refusal) or reading.faults:
        _refuse(reading, files, report)
    assert not isinstance(report, Refusal)
    before = _try(lambda: files_of(standing.document, standing.default_locale))
    after = _try(lambda: files_of({**standing.document, **reading.document}, standing.default_locale))
    return Compared(document, standing.tag, report, before, after)


def _refuse(reading: Reading, files: Files, report: Mapping[str, Any] | Refusal) -> None:
    lines = fault_lines(reading, files, report.faults if isinstance(report, Refusal) else ())
    for line in lines:
        click.echo(line, err=True)
    raise Refused(f"{len(lines)} {'fault' if len(lines) == 1 else 'faults'}, so nothing is pushed")


def _confirmed(question: str) -> bool:
    try:
        return click.confirm(question, err=True)
    except click.Abort:
        click.echo(err=True)
        raise Refused("nothing was pushed: nobody answered; --yes does not ask") from None


T = TypeVar("T")


def _try(work: Callable[[], T]) -> T:
    try:
        return work()
    except Moved:
        raise Refused(
            "nothing was pushed: somebody has changed the set-up since it was compared. Run the command again to see what "
            "pushing would change now; what others changed since your last pull shows there as undone"
        ) from None
    except (Failed, folder.Unusable, Unwritable) as error:
        raise Trouble(visible(str(error))) from None
