"""``dispatcher sandbox``: the loopback provider, for anybody's own tests."""

from __future__ import annotations

from dispatcher_sandbox.command import sandbox_command

command = sandbox_command
