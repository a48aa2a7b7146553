"""``dispatcher rules``: rules, with the topics they name and the policy of an organization as files."""

from __future__ import annotations

from dispatcher_http.commands.setup_files import group

command = group("rules", ("rules", "topics", "policy"), "rules, topics and the policy")
