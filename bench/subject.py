"""The dispatcher as a contestant: one whole process, surface included, that prints ``ready`` and its URL and ends on SIGTERM."""

from __future__ import annotations

import os

import trio

from dispatcher.config import from_mapping
from dispatcher_http import logs
from dispatcher_http.serving import run_until_signalled

if __name__ == "__main__":
    config = from_mapping({name: value for name, value in os.environ.items() if name.startswith("DISPATCHER_")})
    logs.configure(config.log_level)
    trio.run(run_until_signalled, config, lambda service: print("ready", service.url, flush=True))
