"""When a notification is sent: delays, dates of events, send windows, quiet hours, and the end of its use.

Invariant: what is to be sent at all is sent at a moment that is now or later, inside its window and outside quiet hours, and
before it expires.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, tzinfo
from typing import Any, Final

from dispatcher.decisions import Code, Decision, decided
from dispatcher.people import QuietHours
from dispatcher.planned import Timing
from dispatcher.windows import first_moment
from dispatcher.zones import zone_named

FAR_S: Final = 10 * 366 * 86_400
"""How far ahead something may be planned: what waits longer than this was a wrong date."""
_DATE_CHARS_MAX: Final = 40


def moment_of(
    timing: Timing, now_unix_s: float, zone: str, quiet: QuietHours | None, *, critical: bool = False
) -> tuple[list[Decision], float | None, float | None]:
    """The decisions about time, when it is to be sent (Unix seconds, None for at once) and when it expires.

    The last decision ends the chain when it is too late, or when there is no date. A moment that has passed is now.
    """
    found: list[Decision] = []
    wanted_s = now_unix_s
    if timing.relative is not None:
        date_s = instant_of(timing.date, zone)
        if date_s is None or date_s + timing.relative.offset_s > now_unix_s + FAR_S:
            return [decided(Code.TIME_MISSING, date=timing.relative.date.source)], None, None
        wanted_s = date_s + timing.relative.offset_s
        found.append(decided(Code.TIME_RELATIVE, at=wanted_s))
    elif timing.send_at_s is not None:
        wanted_s = timing.send_at_s
        found.append(decided(Code.TIME_SEND_AT, at=wanted_s))
    elif timing.delay_s > 0:
        wanted_s = now_unix_s + timing.delay_s
        found.append(decided(Code.TIME_DELAYED, at=wanted_s))
    expires_at_s = timing.expires_at_s
    if timing.expires_in_s is not None:
        expires_at_s = wanted_s + timing.expires_in_s
    start_s = max(wanted_s, now_unix_s)
    at_s, code = first_moment(start_s, zone, timing.window, quiet)
    if code is not Code.TIME_NOW:
        if critical:
            at_s = start_s
            found.append(decided(Code.TIME_CRITICAL))
        else:
            found.append(decided(code, at=at_s, zone=zone))
    if expires_at_s is not None and at_s >= expires_at_s:
        return [*found, decided(Code.TIME_EXPIRED, expires_at=expires_at_s)], None, None
    if not found:
        found.append(decided(Code.TIME_NOW))
    return found, at_s if at_s > now_unix_s else None, expires_at_s


def instant_of(value: Any, zone: str) -> float | None:
    """The moment that an event's date means, in Unix seconds; None for what is none.

    RFC 3339, or without an offset on the wall clock of ``zone``; a day alone is its midnight. A number is Unix seconds.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if 0 <= value < 253_370_764_800 else None
    if not isinstance(value, str) or not 10 <= len(value) <= _DATE_CHARS_MAX:
        return None
    place: tzinfo = zone_named(zone) or UTC
    try:
        if len(value) == 10:
            day = date.fromisoformat(value)
            moment = datetime(day.year, day.month, day.day, tzinfo=place)
        else:
            moment = datetime.fromisoformat(value)
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=place)
        return moment.timestamp() if 1970 < moment.year < 9999 else None
    except (ValueError, OverflowError):
        return None
