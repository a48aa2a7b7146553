"""Names as file names: letters, digits, dot, hyphen and underscore as they are, everything else as ``%`` and two digits a byte.

Invariant: one name has one file name and one file name has one name, and no name leads out of the folder it is in.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote, unquote_to_bytes

FILE_NAME_BYTES_MAX: Final = 255
"""What the usual file systems take."""


def file_name(name: str) -> str | None:
    """What the file or folder of this name is called; None when that would be too long."""
    quoted = quote(name, safe="").replace("~", "%7E")
    if quoted.startswith("."):
        quoted = "%2E" + quoted[1:]
    return quoted if 1 <= len(quoted) <= FILE_NAME_BYTES_MAX - len(".json") else None


def name_of(quoted: str) -> str | None:
    """The name that is written so; None when no name is."""
    try:
        name = unquote_to_bytes(quoted).decode()
    except UnicodeDecodeError:
        return None
    return name if file_name(name) == quoted else None
