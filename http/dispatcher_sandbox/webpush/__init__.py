"""A simulated Web Push service, with the browsers behind it: what arrives is decrypted."""

from dispatcher_sandbox.webpush.simulator import WebPush
from dispatcher_sandbox.webpush.subscriptions import subscription

__all__ = ["WebPush", "subscription"]
