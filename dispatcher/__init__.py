"""Decisions: plain synchronous functions and frozen records.

Nothing in this package does I/O, starts a task, reads a clock or draws a random number: an event and the time go in,
a value comes out. ``actors`` carries the values out, ``dispatcher_http`` shows them. import-linter holds that arrow.
"""

__version__ = "0.1.0"
