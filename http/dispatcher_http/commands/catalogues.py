"""``dispatcher catalogues``: catalogues of translations of an organization as files."""

from __future__ import annotations

from dispatcher_http.commands.setup_files import group

command = group("catalogues", ("catalogues",), "catalogues")
