"""Providers as pairs of pure functions: what to send, and what the answer means. The socket is somebody else's job."""
