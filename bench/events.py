"""How fast do events become notifications: ``python -m bench events``.

Events for a thousand users whose rule sends an email and a text, each person with a locale, a zone, preferences to look at and
contacts to check: batches of 250 events, so 500 notifications, all durable before the answer. Beside them, in turns, the same
number of notifications handed in finished, as the accept bench does it. Nothing is sent meanwhile: the providers may do one an
hour.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from itertools import count
from typing import Any

import click
import httpx
import orjson
import psycopg

from bench import accepting
from bench.rig import Servers, Turn, contestant, servers, spread

EVENTS_OF_A_BATCH = 250
USERS = 1_000
CHANNELS = ("email", "sms")
_PROVIDER = {
    "provider": "twilio_sms",
    "channel": "sms",
    "credentials": {"account_sid": "AC" + "b" * 32, "auth_token": "b" * 32},
}
_RULE = {
    "event": "shop.purchase",
    "when": "data.total.amount > 0",
    "topic": "purchases",
    "recipients": [{"user": "data.buyer"}],
    "send": [{"channel": channel, "template": "bought"} for channel in CHANNELS],
}
_TEXT = "Hello {{ name }}, thank you for {{ event }}. {% for seat in seats %}{{ seat }}; {% endfor %}"
_TEMPLATES = [
    {
        "name": "bought",
        "channel": "email",
        "locale": locale,
        "subject": "Your tickets for {{ event }}",
        "body_template": _TEXT + "Paid: {{ total.amount|money(total.currency) }}. " + "Enjoy! " * 40,
        "html_template": "<p>Hello {{ name }}.</p><ul>{% for seat in seats %}<li>{{ seat }}</li>{% endfor %}</ul>",
    }
    for locale in ("en", "pt-BR")
] + [{"name": "bought", "channel": "sms", "locale": "en", "body_template": _TEXT}]


def set_up(servers: Servers, client: httpx.Client) -> None:
    """A second channel, templates, a topic, a rule, and people in two languages."""
    settings = {"from_number": "+15005550006", "base_url": servers.sandbox_url, "rate_per_s": 1 / 3600, "burst": 1}
    client.post("/providers", json={**_PROVIDER, "settings": settings}).raise_for_status()
    for template in _TEMPLATES:
        client.post("/templates", json=template).raise_for_status()
    client.put("/topics/purchases", json={"title": "Purchases"}).raise_for_status()
    client.put("/rules/bought", json=_RULE).raise_for_status()
    people = [
        {
            "id": f"user-{number}",
            "locale": ("en-GB", "pt-BR")[number % 2],
            "time_zone": ("Europe/Lisbon", "America/Sao_Paulo")[number % 2],
            "contact_points": {"email": [f"reader{number}@example.org"], "sms": [f"+1555010{number:04}"]},
        }
        for number in range(USERS)
    ]
    answer = client.post("/users", json={"users": people})
    answer.raise_for_status()
    if any(verdict["status"] != "stored" for verdict in answer.json()["users"]):
        raise SystemExit("a user was not stored")


def event(number: int) -> dict[str, Any]:
    """One purchase."""
    data = {
        "buyer": f"user-{number % USERS}",
        "name": f"Reader {number}",
        "event": "The Nocturnes",
        "seats": ["Row 4, seat 7", "Row 4, seat 8"],
        "total": {"amount": 70.0, "currency": "EUR"},
    }
    return {"id": f"purchase-{number}", "type": "shop.purchase", "data": data}


def check(servers: Servers, made: int) -> None:
    """Every event became a rendered notification by each channel: what was quickly skipped is no measure."""
    with psycopg.connect(servers.postgres_url) as connection:
        rows = connection.execute(
            "SELECT count(*), count(*) FILTER (WHERE payload->>'text' LIKE '%%Row 4, seat 8%%') FROM notifications "
            "WHERE organization_id = %s AND event_id IS NOT NULL",
            (accepting.ORGANIZATION,),
        ).fetchone()
    if rows != (made, made):
        raise SystemExit(f"{made} notifications were to come of events, but Postgres holds (rows, rendered) {rows}")


def main(servers: Servers, *, rounds: int, batches: int, connections: int = 4) -> None:
    """Run the rounds and print the table."""
    from_events: list[Turn] = []
    finished: list[Turn] = []
    per_batch = EVENTS_OF_A_BATCH * len(CHANNELS)
    numbers = count()
    with ExitStack() as stack:
        subject = stack.enter_context(contestant([sys.executable, "-m", "bench.subject"], servers.environment()))
        url = subject.first_line.split()[1]
        key = accepting.set_up(servers, url)
        base = f"{url}/v1/orgs/{accepting.ORGANIZATION}"
        with httpx.Client(base_url=base, headers={"authorization": f"Bearer {key}"}, timeout=60) as client:
            set_up(servers, client)
        items = orjson.dumps({"items": [accepting.item(number) for number in range(per_batch)]})
        handed_in = [accepting.request(url, key, items)] * batches
        for number in range(rounds + 1):
            told = [
                accepting.request(
                    url, key, orjson.dumps({"items": [event(next(numbers)) for _ in range(EVENTS_OF_A_BATCH)]}), "events"
                )
                for _ in range(batches)
            ]
            for results, requests in ((from_events, told), (finished, handed_in)):
                turn = accepting.turn(servers, url, subject.process.pid, requests, per_batch, connections)
                if number:  # the first round warms up
                    results.append(turn)
        check(servers, (rounds + 1) * batches * per_batch)
    of_each = f"{EVENTS_OF_A_BATCH} to a request, {len(CHANNELS)} notifications of each"
    print(f"\nEvents: {of_each}; median [least - most] of {rounds} rounds")
    print(f"{'':<28}{'notifications/s':>24}   CPU µs per notification")
    for name, turns in (("out of events", from_events), ("handed in finished", finished)):
        costs = "  ".join(f"{part} {spread([t.cpu_us[part] for t in turns])}" for part in ("own", "postgres", "valkey"))
        print(f"{name:<28}{spread([t.rate for t in turns]):>24}   {costs}")
    ratios = [ours.rate / other.rate for ours, other in zip(from_events, finished, strict=True)]
    print(f"events/s: {spread([t.rate / len(CHANNELS) for t in from_events])}")
    print(f"out of events / handed in finished: {spread(ratios, 2)}")


@click.command()
@click.option("--rounds", default=5, show_default=True)
@click.option("--batches", default=16, show_default=True, help="Requests of one turn.")
def command(rounds: int, batches: int) -> None:
    """Measure how fast events become notifications."""
    with servers() as up:
        main(up, rounds=rounds, batches=batches)
