"""Apple's push service as the sandbox plays it."""

from dispatcher_sandbox.apns.door import serve_apns
from dispatcher_sandbox.apns.simulator import Apns, device_token

__all__ = ["Apns", "device_token", "serve_apns"]
