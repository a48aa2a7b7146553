"""``dispatcher templates``: templates, with the layouts they are made of of an organization as files."""

from __future__ import annotations

from dispatcher_http.commands.setup_files import group

command = group("templates", ("templates", "layouts"), "templates and layouts")
