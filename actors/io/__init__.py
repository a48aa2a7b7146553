"""Postgres, Redis and outbound HTTP native to Trio: no thread and no foreign event loop on the hot path."""
