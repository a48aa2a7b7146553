"""Loopback servers that speak the providers' wire formats, check what the providers check, and fail when told to.

They are the other side of the demo, the tests and the benchmarks, so nothing of the dispatcher is imported here: what the
dispatcher believes about a provider is not what judges it.
"""

from dispatcher_sandbox.behaviour import Behaviour, Outage
from dispatcher_sandbox.ledger import Ledger
from dispatcher_sandbox.reader import Limits
from dispatcher_sandbox.sandbox import Sandbox, open_sandbox

__all__ = ["Behaviour", "Ledger", "Limits", "Outage", "Sandbox", "open_sandbox"]
