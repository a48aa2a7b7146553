"""The page behind an unsubscribe link (RFC 8058): the one place of the surface that people see, without any key.

Looking at a link changes nothing, because programs that scan mails look at all of them; only a POST of the form does, which is
also what a mail program sends for its own button. The link itself says whom it is for, so that neither account nor cookie is
asked for. Invariant: a page repeats nothing of a person, and does not say what is wrong with a link.
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from html import escape
from io import BytesIO
from string import Template
from typing import TYPE_CHECKING, cast

from quart.globals import request_ctx
from quart_trio.wrappers import TrioRequest, TrioResponse
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.formparser import FormDataParser

from actors.store import organizations, preferences
from dispatcher.people import ANY
from dispatcher.problems import Problem, Refused
from dispatcher.unsubscribe import ONE_CLICK, PATH, Unsubscription
from dispatcher_http.problems import NOT_FOUND
from dispatcher_http.routing import announce, whole_change
from dispatcher_http.services import Services
from dispatcher_http.unsubscribe_words import ENGLISH, RIGHT_TO_LEFT, WORDS, language_for

if TYPE_CHECKING:
    from dispatcher_http.app import App

BODY_BYTES_MAX = 4096
RULE = f"{PATH}<token>"

_NOT_ONE_CLICK = Problem(
    400, "not_one_click", "Not an unsubscription", f"The form must have the field {ONE_CLICK[0]} with the value {ONE_CLICK[1]}."
)
_STYLE = (
    ":root{color-scheme:light dark}"
    "body{font:1.125rem/1.5 system-ui,sans-serif;max-width:34rem;margin:15vh auto;padding:0 1.5rem}"
    "h1{font-size:1.75rem;line-height:1.2}"
    "button{font:inherit;padding:.75rem 1.5rem;border:2px solid;border-radius:.5rem;cursor:pointer}"
)
_PAGE = Template(
    '<!doctype html>\n<html lang="$language" dir="$direction">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n<meta name="robots" content="noindex">\n'
    f"<title>$title</title>\n<style>{_STYLE}</style>\n</head>\n"
    "<body>\n<main>\n<h1>$title</h1>\n<p>$text</p>\n$form</main>\n</body>\n</html>\n"
)
_FORM = Template(
    f'<form method="post">\n<input type="hidden" name="{ONE_CLICK[0]}" value="{ONE_CLICK[1]}">\n'
    '<button type="submit">$button</button>\n</form>\n'
)
_STYLE_DIGEST = b64encode(sha256(_STYLE.encode()).digest()).decode()
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_DIGEST}'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
}
_HTML = "text/html; charset=utf-8"
_NOT_HERE = _PAGE.substitute(
    language=ENGLISH,
    direction="ltr",
    title="This link does not work",
    text="It may have been cut off where it was copied.",
    form="",
)


def add_routes(app: App, services: Services) -> None:
    """Looking at a link, and clicking it. Without a public URL or keys there are no links, so none works."""

    async def look(token: str) -> TrioResponse:
        wish = None if services.links is None else services.links.read(token)
        return _not_here() if wish is None else await _page(wish, done=False)

    async def click(token: str) -> TrioResponse:
        wish = None if services.links is None else services.links.read(token)
        if wish is None:
            return _not_here()
        await _require_one_click(cast("TrioRequest", request_ctx.request))
        with whole_change():
            change = await preferences.opt_out(services.pool, wish)
            if change is not None:
                await announce(services.contacts_changed([change]))
        return await _page(wish, done=True)

    async def _page(wish: Unsubscription, *, done: bool) -> TrioResponse:
        organization = await organizations.read(services.pool, wish.organization_id)
        if organization is None:
            return _not_here()
        topic = (await preferences.topics(services.pool, wish.organization_id)).get(wish.topic)
        language = language_for(wish.locale or organization.default_locale)
        words = WORDS[language]
        # A title of its own is for people, a bare name may not be.
        names_topic = wish.user_id is not None and wish.topic != ANY and topic is not None and bool(topic.title)
        text = (words.done_topic if done else words.ask_topic) if names_topic else words.done_all if done else words.ask_all
        # Each in an isolate of its own, because a name may run the other way than the sentence.
        names = {"sender": f"\u2068{organization.name}\u2069", "topic": f"\u2068{topic.title if topic is not None else ''}\u2069"}
        page = _PAGE.substitute(
            language=language,
            direction="rtl" if language in RIGHT_TO_LEFT else "ltr",
            title=escape(words.done_title if done else words.title),
            text=escape(text.format(**names)),
            form="" if done else _FORM.substitute(button=escape(words.button)),
        )
        return TrioResponse(page, 200, HEADERS, content_type=_HTML)

    app.add_url_rule(RULE, f"GET {RULE}", look, methods=["GET"])
    app.add_url_rule(RULE, f"POST {RULE}", click, methods=["POST"])


async def _require_one_click(request: TrioRequest) -> None:
    """Raise Refused unless the body is the form of one click, in either of the forms of a form."""
    if (request.content_length or 0) > BODY_BYTES_MAX:
        raise RequestEntityTooLarge
    body = await request.get_data(False, False, False)
    if len(body) > BODY_BYTES_MAX:
        raise RequestEntityTooLarge
    parser = FormDataParser(max_form_memory_size=BODY_BYTES_MAX, max_form_parts=8)
    _, form, _ = parser.parse(BytesIO(body), request.mimetype, len(body), request.mimetype_params)
    if form.get(ONE_CLICK[0]) != ONE_CLICK[1]:
        raise Refused(_NOT_ONE_CLICK)


def _not_here() -> TrioResponse:
    return TrioResponse(_NOT_HERE, NOT_FOUND.status, HEADERS, content_type=_HTML)
