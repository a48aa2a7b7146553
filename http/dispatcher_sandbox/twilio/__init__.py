"""A simulated Twilio: the Messages resource with its rules, and the status callbacks that follow."""

from dispatcher_sandbox.twilio.simulator import Twilio

__all__ = ["Twilio"]
