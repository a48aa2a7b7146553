"""A mail submission server: its port with STARTTLS, and the one with TLS from the start."""

from dispatcher_sandbox.smtp.server import serve_starttls, serve_tls

__all__ = ["serve_starttls", "serve_tls"]
