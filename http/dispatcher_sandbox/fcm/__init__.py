"""A simulated Firebase Cloud Messaging, and the part of Google's token service that it needs."""

from dispatcher_sandbox.fcm.accounts import Accounts
from dispatcher_sandbox.fcm.simulator import Fcm
from dispatcher_sandbox.fcm.tokens import TokenService

__all__ = ["Accounts", "Fcm", "TokenService"]
