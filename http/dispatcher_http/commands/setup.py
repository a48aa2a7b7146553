"""``dispatcher setup``: everything of an organization as files."""

from __future__ import annotations

from dispatcher.bundle import SECTIONS
from dispatcher_http.commands.setup_files import group

command = group("setup", SECTIONS, "the whole set-up")
