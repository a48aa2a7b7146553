"""A simulated SendGrid v3: mail/send with the rules of the real one."""

from dispatcher_sandbox.sendgrid.simulator import SendGrid

__all__ = ["SendGrid"]
