"""The providers a sandbox simulates."""

from __future__ import annotations

from dispatcher_sandbox.fcm import Accounts, Fcm, TokenService
from dispatcher_sandbox.meta import Meta
from dispatcher_sandbox.sendgrid import SendGrid
from dispatcher_sandbox.ses import Ses
from dispatcher_sandbox.simulator import Simulator
from dispatcher_sandbox.twilio import Twilio
from dispatcher_sandbox.webpush import WebPush

ACCOUNTS = Accounts()
"""Google's service accounts, the same for every sandbox of the process."""

SIMULATORS: tuple[Simulator, ...] = (
    SendGrid(),
    Ses(),
    Twilio(),
    Meta(),
    Fcm(ACCOUNTS),
    TokenService(ACCOUNTS),
    WebPush(),
)
