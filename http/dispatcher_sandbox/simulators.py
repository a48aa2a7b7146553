"""The providers a sandbox simulates."""

from __future__ import annotations

from dispatcher_sandbox.sendgrid import SendGrid
from dispatcher_sandbox.ses import Ses
from dispatcher_sandbox.simulator import Simulator

SIMULATORS: tuple[Simulator, ...] = (SendGrid(), Ses())
