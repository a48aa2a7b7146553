"""``python -m dispatcher_http`` is the command ``dispatcher``."""

from __future__ import annotations

import sys

from dispatcher_http.cli import main

sys.exit(main())
