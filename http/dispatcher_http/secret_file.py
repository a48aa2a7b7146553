"""The encryption key of an installation that configured none: made once, kept in a file of the data folder.

Only for the embedded servers, whose data lies beside it. Whoever brings a Postgres of their own must bring a key as well: a
key on one machine's disk would lock the others out of the shared database.
"""

from __future__ import annotations

import os
import secrets
from base64 import b64encode
from pathlib import Path

from dispatcher.errors import ConfigError
from dispatcher.vault import KEY_BYTES, EncryptionKeys, parse_keys

NAME = "encryption.keys"


def keys_of_folder(data_dir: Path) -> EncryptionKeys:
    """The keys in the folder's file, which is made if there is none. Raises ConfigError when it can not be read or made."""
    path = data_dir.expanduser() / NAME
    try:
        data_dir.expanduser().mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return parse_keys(path.read_text().strip())
        with os.fdopen(descriptor, "w") as file:
            text = f"local:{b64encode(secrets.token_bytes(KEY_BYTES)).decode()}"
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        return parse_keys(text)
    except OSError as error:
        raise ConfigError(
            f"the encryption key in {path} can not be used ({error.strerror}): set DISPATCHER_ENCRYPTION_KEYS"
        ) from None
