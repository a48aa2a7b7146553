"""What SES says about an account when a configuration is tried out, in words for the person who tries."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from dispatcher.http_message import HttpResponse
from dispatcher.providers.probing import Probed
from dispatcher.providers.ses_errors import row_of


def probed(response: HttpResponse, account: Mapping[str, Any], region: str) -> Probed:
    """What an answer to GetAccount means. ``account`` is its JSON object. Never raises."""
    if response.status != 200:
        return _refused(response, region)
    sending, production = account.get("SendingEnabled"), account.get("ProductionAccessEnabled")
    if not isinstance(sending, bool) or not isinstance(production, bool):
        return Probed(False, "not_understood", "The answer is not one of SES. Look at base_url, and what stands between.")
    if account.get("EnforcementStatus") == "SHUTDOWN":
        return Probed(
            False, "account_suspended", f"AWS has ended this account's right to send mail in {region}. Open a support case there."
        )
    if not sending:
        return Probed(
            False, "sending_paused", f"Sending is switched off for this account in {region}. Switch it on in the console of SES."
        )
    if not production:
        words = (
            f"The account is in SES's sandbox in {region}: only verified recipients get its mails. Ask AWS for production "
            "access there, or set region to the one that has it."
        )
        return Probed(False, "account_in_sandbox", words)
    return _good(account, region)


def _good(account: Mapping[str, Any], region: str) -> Probed:
    given = account.get("SendQuota")
    quota = given if isinstance(given, dict) else {}
    rate_per_s, day, sent = (_number(quota.get(name)) for name in ("MaxSendRate", "Max24HourSend", "SentLast24Hours"))
    if day is not None and sent is not None and 0 <= day <= sent:
        words = f"The account has used up its {day:.0f} mails of 24 hours in {region}. It goes on by itself; or ask AWS for more."
        return Probed(False, "daily_quota", words)
    words = f"The account may send in {region}."
    if rate_per_s is not None and day is not None and day >= 0:
        words = f"The account may send in {region}: {rate_per_s:g} mails a second and {day:.0f} in 24 hours."
    if account.get("EnforcementStatus") == "PROBATION":
        words += " AWS has it under review: look at its bounces and complaints."
    return Probed(True, "ready", words)


def _refused(response: HttpResponse, region: str) -> Probed:
    row = row_of(response)
    if row.code == "not_permitted":
        words = (
            "The access key is valid and may not look at the account. Allow ses:GetAccount to try it out; sending itself needs "
            "ses:SendEmail and ses:SendBulkEmail."
        )
        return Probed(False, "probe_not_permitted", words)
    if row.code == "credentials_refused":
        words = f"{row.words} Look at region too: the signature is made for {region}, and base_url must lead there."
        return Probed(False, row.code, words)
    return Probed(False, row.code, row.words)


def _number(value: object) -> float | None:
    """-1 stands for no limit."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
    return float(value) if is_number else None  # type: ignore[arg-type]
