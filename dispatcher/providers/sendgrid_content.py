"""The content of a SendGrid mail: the end of a request's body, from the list of its parts on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from dispatcher.mail_extras import Extras, extras_of
from dispatcher.providers.provider import Unsendable


def texts_of(payload: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Plain text and HTML, at least one of them. Raises Unsendable. A part must not be empty."""
    text, html = payload.get("text") or None, payload.get("html") or None
    if (text is not None and not isinstance(text, str)) or (html is not None and not isinstance(html, str)):
        raise Unsendable("content_invalid")
    if text is None and html is None:
        raise Unsendable("content_missing")
    return text, html


def checked_extras(payload: Mapping[str, Any]) -> Extras:
    """Headers and attachments. Raises Unsendable."""
    extras = extras_of(payload)
    if extras is None:
        raise Unsendable("extras_invalid")
    return extras


def extras_written(extras: Extras) -> bytes:
    """Their fields, each with a comma in front; nothing when there are none."""
    written = b""
    if extras.headers:
        written += b',"headers":' + orjson.dumps(dict(extras.headers))
    if extras.attachments:
        files = [
            {"content": each.content, "filename": each.filename, "type": each.content_type, "disposition": "attachment"}
            for each in extras.attachments
        ]
        written += b',"attachments":' + orjson.dumps(files)
    return written


def content_of(payload: Mapping[str, Any]) -> bytes:
    """The rest of the body. Plain text must stand before HTML."""
    return written(*texts_of(payload))


def written(text: str | None, html: str | None) -> bytes:
    """The rest of the body with these texts. Raises JSONEncodeError for what is not Unicode."""
    if html is None:
        return b',"content":[{"type":"text/plain","value":' + orjson.dumps(text) + b"}]}"
    if text is None:
        return b',"content":[{"type":"text/html","value":' + orjson.dumps(html) + b"}]}"
    plain_text, html_text = orjson.dumps(text), orjson.dumps(html)
    return b',"content":[{"type":"text/plain","value":' + plain_text + b'},{"type":"text/html","value":' + html_text + b"}]}"
