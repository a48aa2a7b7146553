"""A set-up as files, from the command line against a whole dispatcher: pulled, edited, compared, pushed, and pulled again."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pytest
import trio

from dispatcher_http.cli import main
from running import Customer, Running, dispatching

SMS = {"name": "order.paid", "channel": "sms", "locale": "en", "body_template": "Paid: {{ total }}", "variables": {"total": {}}}
EMAIL = {
    "name": "order.paid",
    "channel": "email",
    "locale": "en",
    "subject": "Paid",
    "body_template": "Thank you,\nyou paid {{ total }}.\n",
    "html_template": "<p>Thank you</p>",
    "layout": "frame",
    "variables": {"total": {"required": True, "description": "With its currency"}},
}
WHOLE: dict[str, Any] = {
    "rules": {
        "paid": {
            "event": "order.paid",
            "when": "data.total > 0",
            "recipients": [{"user": "event.user_id"}],
            "send": [{"channel": "email", "template": "order.paid"}],
            "topic": "orders",
        }
    },
    "topics": {"orders": {"title": "Orders"}},
    "layouts": {"frame": {"text": "{{ content }}\n-- \nAcme", "html": "<main>{{ content }}</main>"}},
    "catalogues": {
        "en": {"messages": {"hello": {"text": "Hello {name}"}}},
        "pt": {"messages": {"hello": {"text": "Olá {name}"}}},
    },
    "policy": {"time_zone": "Europe/Lisbon", "kept_days": 90},
    "templates": [EMAIL, SMS],
}


class Result(NamedTuple):
    status: int
    out: str
    err: str


Run = Callable[..., Awaitable[Result]]


@pytest.fixture
async def running(database_url: str, redis_url: str) -> AsyncIterator[Running]:
    async with dispatching(database_url, redis_url) as running:
        yield running


@pytest.fixture
async def acme(running: Running) -> Customer:
    return await running.customer("acme")


@pytest.fixture
def run(acme: Customer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """``await run("setup", "push", ...)``: the command on the folder, while the dispatcher serves."""
    monkeypatch.setenv("API_KEY", acme.key)
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))

    async def run(kind: str, verb: str, *options: str) -> Result:
        capsys.readouterr()
        arguments = [kind, verb, "--url", acme.url, "--org", acme.organization_id, *options, str(tmp_path)]
        status = await trio.to_thread.run_sync(main, arguments)
        return Result(status, *capsys.readouterr())

    return run


class Answering(io.StringIO):
    """Somebody at a terminal who says yes, once something else has happened."""

    def __init__(self, meanwhile: Callable[[], Awaitable[object]]) -> None:
        super().__init__("y\n")
        self._meanwhile = meanwhile

    def readline(self, *size: Any) -> str:  # type: ignore[override]
        trio.from_thread.run(self._meanwhile)
        return super().readline(*size)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def test_a_set_up_is_pulled_edited_compared_pushed_and_pulled_again(acme: Customer, run: Run, tmp_path: Path) -> None:
    await acme.post("setup", WHOLE)

    assert (await run("setup", "pull")).status == 0
    pulled = tree(tmp_path)
    assert pulled["templates/order.paid/email/en/body.txt"] == b"Thank you,\nyou paid {{ total }}.\n\n"
    assert pulled["layouts/frame/text.txt"] == b"{{ content }}\n-- \nAcme\n"
    assert json.loads(pulled["policy.json"]) == WHOLE["policy"]
    assert 'msgid "Hello {name}"\nmsgstr "Olá {name}"\n' in pulled["catalogues/pt.po"].decode()
    assert (await run("setup", "diff")) == (0, "", "")

    edit(tmp_path / "rules/paid.json", "data.total > 0", "data.total > 100")
    (tmp_path / "topics/offers.json").write_text('{"title": "Offers"}')
    (tmp_path / "templates/order.paid/sms/en/body.txt").unlink()
    (tmp_path / "templates/order.paid/sms/en/template.json").unlink()
    differing = await run("setup", "diff", "--prune")
    assert differing.status == 1
    assert differing.out.splitlines() == [
        "+ topic 'offers'",
        "~ rule 'paid'",
        "    @@ -13,4 +13,4 @@",
        "       ],",
        '       "topic": "orders",',
        '    -  "when": "data.total > 0"',
        '    +  "when": "data.total > 100"',
        "     }",
        "- template 'order.paid' (sms, en)",
    ]

    pushed = await run("setup", "push", "--prune", "--yes")
    assert (pushed.status, pushed.out) == (0, differing.out)
    assert pushed.err == "Pushed: 1 created, 1 updated, 1 deleted.\n"
    assert (await acme.get("rules/paid"))["body"]["when"] == "data.total > 100"
    assert [each["channel"] for each in (await acme.get("templates"))["items"]] == ["email"]

    before = tree(tmp_path)
    assert (await run("setup", "pull")).status == 0
    assert {**before, "topics/offers.json": b'{\n  "title": "Offers"\n}\n'} == tree(tmp_path)
    assert (await run("setup", "push")) == (0, "", "Nothing to push.\n")


async def test_a_push_with_faults_names_every_file_and_changes_nothing(acme: Customer, run: Run, tmp_path: Path) -> None:
    await acme.post("setup", WHOLE)
    await run("setup", "pull")
    before = await acme.get("setup")
    edit(tmp_path / "rules/paid.json", "data.total > 0", "data.total >")
    edit(tmp_path / "templates/order.paid/email/en/body.txt", "{{ total }}", "{% if total %}")
    edit(tmp_path / "topics/orders.json", '"Orders"', "")
    edit(tmp_path / "catalogues/pt.po", "Olá {name}", "Olá {")
    (tmp_path / "rules/broken.json").write_text("{")

    for verb in ("push", "diff"):
        refused = await run("setup", verb, *(["--yes"] if verb == "push" else []))
        lines = refused.err.splitlines()

        assert (refused.status, refused.out) == (1, "")
        assert [line.partition(": ")[0] for line in lines] == [
            "catalogues/pt.po:12",
            "rules/broken.json:1",
            "rules/paid.json:15",
            "templates/order.paid/email/en/body.txt:2",
            "topics/orders.json:3",
            "Error",
        ]
        assert lines[-1] == "Error: 5 faults, so nothing is pushed"
    assert await acme.get("setup") == before


async def test_what_changed_between_the_question_and_the_answer_is_not_overwritten(
    acme: Customer, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await acme.post("setup", WHOLE)
    await run("setup", "pull")
    edit(tmp_path / "topics/orders.json", "Orders", "Purchases")

    async def meanwhile() -> None:
        await acme.call("PUT", "topics/orders", {"title": "Sales"})

    monkeypatch.setattr(sys, "stdin", Answering(meanwhile))
    refused = await run("rules", "push")

    assert refused.status == 1
    assert "somebody has changed the set-up since it was compared" in refused.err
    assert (await acme.get("topics/orders"))["body"] == {"title": "Sales"}


async def test_nothing_is_pushed_unless_somebody_says_so(
    acme: Customer, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "topics").mkdir()
    (tmp_path / "topics/offers.json").write_text("{}")

    unanswered = await run("rules", "push")
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    refused = await run("rules", "push")

    assert (unanswered.status, refused.status) == (1, 1)
    assert "Push to acme at http://" in refused.err
    assert "1 created" in refused.err
    assert "--yes" in unanswered.err
    assert (await acme.get("topics"))["items"] == []


async def test_each_command_leaves_the_files_and_things_of_the_others_alone(acme: Customer, run: Run, tmp_path: Path) -> None:
    await acme.post("setup", WHOLE)
    found = {}
    for kind in ("templates", "rules", "catalogues"):
        before = set(tree(tmp_path))
        await run(kind, "pull")
        found[kind] = {path.partition("/")[0] for path in set(tree(tmp_path)) - before}
    (tmp_path / "rules/paid.json").unlink()

    assert found == {
        "templates": {"templates", "layouts"},
        "rules": {"rules", "topics", "policy.json"},
        "catalogues": {"catalogues"},
    }
    assert (await run("templates", "diff", "--prune")).status == 0
    kept = await run("rules", "diff")
    assert (kept.status, kept.out) == (0, "")
    (tmp_path / "rules").mkdir(exist_ok=True)
    (tmp_path / "rules/other.json").write_text(json.dumps({**WHOLE["rules"]["paid"], "when": "false"}))
    assert (await run("rules", "diff")).out == "+ rule 'other'\n= rule 'paid' (only there; --prune deletes it)\n"


async def test_pulling_after_a_push_after_a_pull_gives_the_same_files(acme: Customer, run: Run, tmp_path: Path) -> None:
    random = Random(7)
    for _ in range(2):
        await acme.post("setup", {**random_set_up(random), "prune": True})
        assert (await run("setup", "pull")).status == 0
        pulled = tree(tmp_path)
        assert (await run("setup", "push", "--yes", "--prune")).err in ("Nothing to push.\n", "")
        assert (await run("setup", "pull")).out == ""
        assert tree(tmp_path) == pulled
        whole = await acme.get("setup")
        assert (await acme.post("setup", {**empty(), "prune": True}))["changed"]
        assert (await run("setup", "push", "--yes")).status == 0
        assert await acme.get("setup") == whole


async def test_what_stands_in_the_way_is_told_in_a_line(
    acme: Customer, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = await run("setup", "push")
    (tmp_path / "rules").symlink_to(tmp_path.parent)
    link = await run("setup", "diff")
    monkeypatch.setenv("API_KEY", "")
    keyless = await run("setup", "pull")
    monkeypatch.setenv("API_KEY", "ndk_" + "x" * 43)
    stranger = await run("setup", "pull")
    nobody = await run("setup", "pull", "--url", "http://127.0.0.1:1")

    assert [each.status for each in (nothing, link, keyless, stranger, nobody)] == [2] * 5
    assert "pull first" in nothing.err
    assert "rules: a symbolic link is not followed" in link.err
    assert "setup:read" in keyless.err
    assert "valid key" in stranger.err
    assert "nobody serves at http://127.0.0.1:1" in nobody.err
    assert all(each.err.count("\n") == 1 for each in (nothing, link, keyless, stranger, nobody))


def empty() -> dict[str, Any]:
    return {**{section: {} for section in ("rules", "topics", "layouts", "catalogues", "policy")}, "templates": []}


def random_set_up(random: Random) -> dict[str, Any]:
    """One that is valid, with names and texts that are hard on files."""

    def text() -> str:
        return "".join(random.choice("aé✓ \t\n'\"\\-:#|é") for _ in range(random.randrange(1, 20))) + "."

    names = random.sample(["a/b", "..", "é ü", ".x", "A~%", "c:d", "plain", "x" * 80], 3)
    topics = {name: {"title": name} for name in random.sample(["a", "b.c", "d_e", "f-g"], 2)}
    layouts = {name: {"text": text() + "{{ content }}" + text()} for name in random.sample(["l/m", "n", "ö"], 2)}
    templates = [
        {"name": name, "channel": channel, "locale": locale, "body_template": text(), "variables": {"v": {"default": text()}}}
        | ({"subject": "S " + name} if channel == "email" else {})
        | ({"layout": next(iter(layouts))} if channel == "email" else {})
        for name in names
        for channel in random.sample(["email", "sms"], random.randrange(1, 3))
        for locale in ("en", "zh-Hant-TW")
    ]
    send = [{"channel": templates[0]["channel"], "template": templates[0]["name"], "variables": {"v": "data.v"}}]
    rule = {"event": "a.*", "recipients": [{"user_ids": ["é", "u/1"]}], "send": send, "delay_s": random.choice([1.5, 60, 60.0])}
    rules = {"r.1": {**rule, "topic": next(iter(topics))}, "r-2": {**rule, "enabled": False, "expires_in_s": 86400.0}}
    english = {"k:1/x": {"text": "é ✓ {name}", "note": "A note."}, "k2": {"plural": {"one": "1", "other": "{count}"}}}
    translated = {
        "k2": {"plural": {"other": "{count}"}, "source": {"one": "1", "other": "{count}"}},
        "k:1/x": {"text": "{name}\n", "source": random.choice(["old {name}", "é ✓ {name}"])},
    }
    catalogues: dict[str, Any] = {"en": {"messages": english}, "zh-Hant-TW": {"messages": translated}}
    policy = random.choice([{}, {"kept_days": 30}])
    return {
        "rules": rules,
        "topics": topics,
        "layouts": layouts,
        "catalogues": catalogues,
        "policy": policy,
        "templates": templates,
    }
