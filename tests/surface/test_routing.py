"""What every route is given and gives back."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from quart_trio import QuartTrio

from dispatcher.errors import QueueUnavailable
from dispatcher.model import OrganizationId
from dispatcher.problems import Refused
from dispatcher_http import routing
from dispatcher_http.routing import Call, announce, answer, no_content, whole_change


async def call(path_id: str = "", body: bytes = b"{}", **headers: str) -> Call:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with QuartTrio("test").test_request_context("/?a=b", method="POST", data=body, headers=named) as context:
        return Call(OrganizationId("acme"), {"id": path_id}, context.request)  # type: ignore[arg-type]


async def test_what_cannot_be_an_id_is_not_found() -> None:
    id = "0192aaaa-bbbb-7ccc-8ddd-eeeeffff0000"

    assert (await call(id.upper())).id_of("thing") == id
    for nonsense in ("", "x", id[:-1], id + "0", "{" + id + "}", id.replace("-", "")):
        with pytest.raises(Refused, match="thing_not_found"):
            (await call(nonsense)).id_of("thing")


async def test_a_body_is_a_json_object_of_the_right_type() -> None:
    assert await (await call(body=b'{"a": 1}', content_type="application/json")).json() == {"a": 1}
    with pytest.raises(Refused, match="media_type_unsupported"):
        await (await call(content_type="text/plain")).json()
    with pytest.raises(Refused, match="media_type_unsupported"):
        await (await call(content_type="application/json", content_encoding="gzip")).json()
    with pytest.raises(Refused, match="json_invalid"):
        await (await call(body=b"{", content_type="application/json")).json()


async def test_answers_are_json_with_their_length() -> None:
    response = answer({"a": "ä"}, 201, {"location": "/x"})

    assert await response.get_data() == '{"a":"ä"}'.encode()
    assert (response.status_code, response.headers["location"]) == (201, "/x")
    assert (response.headers["content-type"], response.headers["content-length"]) == ("application/json", "10")


async def test_an_answer_without_words_has_neither_length_nor_type() -> None:
    response = no_content()

    assert (response.status_code, dict(response.headers)) == (204, {})


async def test_a_change_is_not_cut_short_by_a_client_that_leaves(autojump_clock: trio.testing.MockClock) -> None:
    done = []
    with trio.move_on_after(1):
        with whole_change():
            await trio.sleep(5)
            done.append("written")
            await trio.sleep(5)
            done.append("announced")
        await trio.sleep(1)
        done.append("answered")

    assert done == ["written", "announced"]


async def test_a_change_does_not_take_for_ever(autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(trio.TooSlowError):
        with whole_change():
            await trio.sleep_forever()
    assert trio.current_time() == routing.CHANGE_DEADLINE_S


async def test_a_queue_that_is_away_is_logged_and_not_an_error(caplog: pytest.LogCaptureFixture) -> None:
    async def away() -> None:
        raise QueueUnavailable("redis at secret-host")

    await announce(away())

    assert "could not be announced" in caplog.text
    assert "secret-host" not in caplog.text
