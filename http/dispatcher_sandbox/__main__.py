"""``python -m dispatcher_sandbox``."""

from __future__ import annotations

from dispatcher_sandbox.command import sandbox_command

sandbox_command(prog_name="python -m dispatcher_sandbox")
