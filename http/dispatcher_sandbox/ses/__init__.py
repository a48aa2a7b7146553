"""A simulated Amazon SES, version 2: SendEmail, SendBulkEmail and GetAccount, and its reports through SNS."""

from dispatcher_sandbox.ses.rendering import Mail, mails_of
from dispatcher_sandbox.ses.simulator import Ses

__all__ = ["Mail", "Ses", "mails_of"]
