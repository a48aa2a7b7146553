"""SMTP submission native to Trio: the public names.

``SmtpPool.exchange`` takes an :class:`~dispatcher.smtp_message.SmtpRequest` and returns an
:class:`~dispatcher.smtp_message.SmtpResponse`, or raises NotSent or MaybeSent as HTTP's does.

| module | one idea |
|---|---|
| smtp_terms | limits, statistics, what a failure is |
| smtp_wire | bytes to replies, requests to bytes, no I/O |
| smtp_link | the byte stream, plain or TLS |
| smtp_connection | a session, and one transaction after another on it |
| smtp_pool | sessions that are kept and shared |

Nothing in these modules logs, and no exception they raise names a login, an address or a message.
"""

from actors.io.smtp_pool import SmtpPool, open_smtp_pool
from actors.io.smtp_terms import SmtpPoolLimits, SmtpPoolStatistics

__all__ = ["SmtpPool", "SmtpPoolLimits", "SmtpPoolStatistics", "open_smtp_pool"]
