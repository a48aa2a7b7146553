"""The key of an installation that configured none: made once, whole or not at all, and never shown."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from random import Random

import pytest

from dispatcher import vault
from dispatcher.errors import ConfigError
from dispatcher.vault import EncryptionKeys
from dispatcher_http.secret_file import NAME, keys_of_folder


def opens(one: EncryptionKeys, other: EncryptionKeys) -> bool:
    return vault.open_sealed(other, vault.seal(one, b"secret", b"context", Random(1).randbytes), b"context") == b"secret"


def test_the_key_is_made_once_and_found_again(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "data"
    first, second = keys_of_folder(folder), keys_of_folder(folder)

    assert first.ids == ("local",)
    assert opens(first, second)
    assert opens(second, first)
    assert [path.name for path in folder.iterdir()] == [NAME]


def test_two_folders_have_two_keys(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        opens(keys_of_folder(tmp_path / "one"), keys_of_folder(tmp_path / "other"))


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    keys_of_folder(tmp_path / "data")

    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "data" / NAME).stat().st_mode & 0o777 == 0o600


def test_processes_that_start_at_once_agree_on_one(tmp_path: Path) -> None:
    found: list[EncryptionKeys] = []
    threads = [threading.Thread(target=lambda: found.append(keys_of_folder(tmp_path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert all(opens(found[0], keys) for keys in found)
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_a_start_that_dies_in_between_leaves_no_half_of_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            keys_of_folder(tmp_path)

    assert list(tmp_path.iterdir()) == []
    assert opens(keys_of_folder(tmp_path), keys_of_folder(tmp_path))


def test_a_key_with_more_behind_it_is_a_rotation_by_hand(tmp_path: Path) -> None:
    old = keys_of_folder(tmp_path)
    (tmp_path / NAME).write_text(f"new:{'A' * 43}=,{(tmp_path / NAME).read_text()}")
    both = keys_of_folder(tmp_path)

    assert both.ids == ("new", "local")
    assert opens(old, both)


@pytest.mark.parametrize("content", [b"", b"\n", b"local", b"local:c2hvcnQ=", b"local:hush hush", b"\xff\xfe"])
def test_a_spoilt_file_is_one_clear_line_that_names_it_and_shows_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / NAME).write_bytes(content)

    with pytest.raises(ConfigError) as refused:
        keys_of_folder(tmp_path)

    line = str(refused.value)
    assert line.startswith(f"the encryption key in {tmp_path / NAME} can not be used (")
    assert line.endswith("restore the file, or set DISPATCHER_ENCRYPTION_KEYS")
    assert "\n" not in line
    assert "hush" not in line
    assert (tmp_path / NAME).read_bytes() == content


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ConfigError, match="encryption key in .*file/data/encryption.keys can not be used"):
        keys_of_folder(tmp_path / "file" / "data")
