"""The encryption key of an installation that configured none: made once, kept in a file of the data folder.

Only for the embedded servers, whose data lies beside it. Whoever brings a Postgres of their own must bring a key as well: a key
on one machine's disk would lock the others out of the shared database. The file appears with its content or not at all, and is
never written again: a lost key is lost credentials.
"""

from __future__ import annotations

import os
import secrets
from base64 import b64encode
from contextlib import suppress
from pathlib import Path

from dispatcher.errors import ConfigError
from dispatcher.vault import KEY_BYTES, KEYS_VARIABLE, EncryptionKeys, parse_keys

NAME = "encryption.keys"


def keys_of_folder(data_dir: Path) -> EncryptionKeys:
    """The keys in the folder's file, which is made if there is none. Raises ConfigError when it can not be read or made."""
    path = data_dir.expanduser() / NAME
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            _make(path)
        return parse_keys(path.read_text(encoding="ascii").strip())
    except OSError as error:
        reason = error.strerror or "it can not be read"
    except UnicodeDecodeError:
        reason = "it is not text"
    except ConfigError as error:
        reason = str(error).removeprefix(f"{KEYS_VARIABLE}: ")
    raise ConfigError(f"the encryption key in {path} can not be used ({reason}): restore the file, or set {KEYS_VARIABLE}")


def _make(path: Path) -> None:
    beside = path.with_name(f"{NAME}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"local:{b64encode(secrets.token_bytes(KEY_BYTES)).decode()}\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # somebody else was quicker: theirs counts
            os.link(beside, path)
    finally:
        with suppress(FileNotFoundError):
            beside.unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # or a power failure could still take the name away, after something was sealed with the key
    finally:
        os.close(folder)
