from __future__ import annotations

from base64 import b64encode, urlsafe_b64decode
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.config import from_mapping
from dispatcher.errors import ConfigError
from dispatcher.model import Channel, OrganizationId
from dispatcher.people import ANY
from dispatcher.unsubscribe import PATH, URL_CHARS_MAX, Links, Unsubscription, unsubscribe_headers
from dispatcher.vault import EncryptionKeys

OLD, NEW, OTHER = bytes(32), bytes(range(32)), bytes(range(1, 33))
URL = "https://notify.example.org"
LINKS = Links(URL, EncryptionKeys.of({"k1": OLD}))
ADA = Unsubscription(OrganizationId("acme"), Channel.EMAIL, "offers", user_id="ada@example.org", issued_at_s=1_764_000_000)
unsubscriptions = st.builds(
    Unsubscription,
    organization_id=st.sampled_from(["acme", "other-1"]).map(OrganizationId),
    channel=st.sampled_from(list(Channel)),
    topic=st.sampled_from(["offers", ANY, "a.b-c_d"]),
    user_id=st.text(st.characters(codec="utf-8"), min_size=1, max_size=60),
    issued_at_s=st.integers(0, 2**40),
    locale=st.sampled_from([None, "pt-BR", "ar"]),
)


@given(unsubscriptions, st.none() | st.binary(min_size=32, max_size=32))
def test_what_a_link_was_made_of_is_read_from_it(each: Unsubscription, address: bytes | None) -> None:
    each = each if address is None else evolve(each, user_id=None, address=address)

    url = LINKS.url(each)

    assert url.startswith(URL + PATH)
    assert LINKS.read(url.removeprefix(URL + PATH)) == each


@given(st.data())
def test_no_link_can_be_changed(data: Any) -> None:
    token = LINKS.token(ADA)
    place = data.draw(st.integers(0, len(token) - 1))
    letter = data.draw(st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=. "))
    changed = token[:place] + letter + token[place + 1 :]

    assert changed == token or LINKS.read(changed) is None


def test_a_link_has_one_spelling_also_where_its_last_letter_has_bits_to_spare() -> None:
    tokens = [LINKS.token(evolve(ADA, user_id="a" * length)) for length in range(1, 4)]
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

    assert {len(token) % 4 for token in tokens} == {0, 2, 3}
    for token in tokens:
        assert [letter for letter in letters if LINKS.read(token[:-1] + letter) is not None] == [token[-1]]


@pytest.mark.parametrize("token", ["", "A", "AAAA", "A" * 22, "A" * 100, "A" * 5000, "ä" * 40, "=" * 40, "a+b/" * 20, "%00" * 20])
def test_what_was_not_made_here_is_nothing(token: str) -> None:
    assert LINKS.read(token) is None
    assert Links(URL, EncryptionKeys.of({"k1": OTHER})).read(LINKS.token(ADA)) is None


def test_a_link_survives_a_rotation_while_its_key_is_kept() -> None:
    token = LINKS.token(ADA)
    rotated = Links(URL, EncryptionKeys.of({"k2": NEW, "k1": OLD}))

    assert rotated.read(token) == ADA
    assert rotated.token(ADA) != token
    assert LINKS.read(rotated.token(ADA)) is None
    assert Links(URL, EncryptionKeys.of({"k2": NEW})).read(rotated.token(ADA)) == ADA


def test_nothing_of_a_person_can_be_read_in_a_link_and_equal_mails_have_equal_links() -> None:
    token = LINKS.token(ADA)
    opened = urlsafe_b64decode(token + "=" * (-len(token) % 4))

    assert not [word for word in (b"ada", b"example", b"acme", b"offers") if word in opened]
    assert token == Links(URL, EncryptionKeys.of({"another-name": OLD})).token(ADA)
    assert "ada" not in repr(ADA)


def test_without_a_url_or_keys_there_are_no_links() -> None:
    keys = EncryptionKeys.of({"k1": OLD})

    assert Links.of("", keys) is None
    assert Links.of(URL, None) is None
    assert Links.of(URL, keys) is not None


def test_the_headers_are_those_of_one_click_unless_the_link_fits_no_line() -> None:
    assert unsubscribe_headers("https://n.example.org/v1/unsubscribe/abc") == {
        "List-Unsubscribe": "<https://n.example.org/v1/unsubscribe/abc>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
    }
    assert unsubscribe_headers("https://n.example.org/" + "a" * URL_CHARS_MAX) == {}


def test_the_public_url_is_where_people_reach_us_and_safe_unless_it_is_this_machine() -> None:
    def public(url: str) -> str:
        return from_mapping({"DISPATCHER_PUBLIC_URL": url}).surface.public_url

    assert public("https://notify.example.org/") == URL
    assert public("https://example.org/notify") == "https://example.org/notify"
    assert public("http://127.0.0.1:8080") == "http://127.0.0.1:8080"
    assert public("") == ""
    for wrong in ("notify.example.org", "http://notify.example.org", "https://u:p@example.org", "https://a.org/?b", "ftp://a.org",
                  "https://example.org/" + "a" * 200):  # fmt: skip
        with pytest.raises(ConfigError, match="DISPATCHER_PUBLIC_URL"):
            public(wrong)


def test_keys_for_something_else_tell_nothing_of_the_keys() -> None:
    keys = EncryptionKeys.of({"k1": OLD, "k2": NEW})
    derived = keys.derived(b"one purpose", 64)

    assert [len(key) for key in derived] == [64, 64]
    assert len({*derived, *keys.derived(b"another", 64)}) == 4
    assert b64encode(OLD).decode() not in repr(keys)
    assert repr(keys) == "EncryptionKeys(sealing_id='k1')"
