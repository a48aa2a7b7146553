"""A simulated WhatsApp Cloud API: messages with their rules, and the webhooks that follow."""

from dispatcher_sandbox.meta.simulator import Meta

__all__ = ["Meta"]
