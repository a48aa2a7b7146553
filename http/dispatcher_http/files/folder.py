"""The folder on disk: what is in it, and bringing it to what it should hold.

Only files of a set-up are ever replaced or removed; everything else in the folder is somebody else's. Invariant: nothing outside
the folder is read or written. A symbolic link on the way is refused, never followed, and a file appears whole or not at all.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Final

from attrs import frozen

from dispatcher_http.files.tree import FOLDERS, POLICY_FILE, Files

FILE_BYTES_MAX: Final = 4 * 1024 * 1024
FILES_MAX: Final = 20_000
DEPTH_MAX: Final = 6
"""How deep a set-up goes, and one level more to notice what lies too deep."""
_BESIDE: Final = ".dispatcher-new"


class Unusable(Exception):
    """The folder can not be used. The text names the path and says why, for the user."""


@frozen
class Written:
    """What a :func:`write` has done, as sorted paths."""

    written: tuple[str, ...]
    removed: tuple[str, ...]


def read(folder: Path, sections: Collection[str]) -> dict[str, bytes]:
    """Every file of these sections, by its path with slashes. Raises Unusable, also when there is no such folder."""
    if not folder.is_dir():
        raise Unusable(f"{folder}: there is no such folder")
    files: dict[str, bytes] = {}
    for path in _paths(folder, sections):
        if len(files) >= FILES_MAX:
            raise Unusable(f"{folder}: it has more than {FILES_MAX} files")
        files[path] = _content(folder, path)
    return files


def write(folder: Path, sections: Collection[str], files: Files, is_ours: Callable[[str], bool]) -> Written:
    """Make the folder hold these files, and of its sections no others that are ours. Raises Unusable."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Unusable(f"{folder}: {error.strerror}") from None
    there = read(folder, sections)
    written = tuple(path for path in sorted(files) if there.get(path) != files[path])
    removed = tuple(path for path in sorted(there) if path not in files and is_ours(path))
    for path in removed:
        _remove(folder, path)
    for path in written:
        _replace(folder, path, files[path])
    return Written(written, removed)


def _paths(folder: Path, sections: Collection[str]) -> Iterator[str]:
    tops = [section for section in FOLDERS if section in sections] + ([POLICY_FILE] if "policy" in sections else [])
    waiting = [(top, 1) for top in sorted(tops, reverse=True) if os.path.lexists(folder / top)]
    while waiting:
        path, depth = waiting.pop()
        mode = os.lstat(folder / path).st_mode
        name = path.rpartition("/")[2]
        if stat.S_ISLNK(mode):
            raise Unusable(f"{path}: a symbolic link is not followed; put the file itself there")
        if name.startswith("."):
            continue
        if stat.S_ISDIR(mode):
            if depth > DEPTH_MAX:
                raise Unusable(f"{path}: no set-up goes so deep")
            try:
                inside = sorted(os.listdir(folder / path), reverse=True)
            except OSError as error:
                raise Unusable(f"{path}: {error.strerror}") from None
            waiting += [(f"{path}/{each}", depth + 1) for each in inside]
        elif stat.S_ISREG(mode):
            yield path
        else:
            raise Unusable(f"{path}: it is no ordinary file")


def _content(folder: Path, path: str) -> bytes:
    try:
        with os.fdopen(os.open(folder / path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise Unusable(f"{path}: {error.strerror}") from None
    if len(content) > FILE_BYTES_MAX:
        raise Unusable(f"{path}: it has more than {FILE_BYTES_MAX} bytes")
    return content


def _replace(folder: Path, path: str, content: bytes) -> None:
    place = folder / path
    try:
        for parent in reversed(place.relative_to(folder).parents[:-1]):
            if not (folder / parent).is_symlink():
                (folder / parent).mkdir(exist_ok=True)
            if not stat.S_ISDIR(os.lstat(folder / parent).st_mode):
                raise Unusable(f"{parent}: it is no folder")
        beside = place.with_name(_BESIDE)
        beside.unlink(missing_ok=True)
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666), "wb") as file:
            file.write(content)
        os.replace(beside, place)
    except OSError as error:
        raise Unusable(f"{path}: {error.strerror}") from None


def _remove(folder: Path, path: str) -> None:
    place = folder / path
    try:
        place.unlink()
        for parent in place.relative_to(folder).parents[:-1]:
            if os.listdir(folder / parent):
                break
            (folder / parent).rmdir()
    except OSError as error:
        raise Unusable(f"{path}: {error.strerror}") from None
