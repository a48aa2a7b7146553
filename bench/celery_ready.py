"""Starts the Celery worker of the benchmark and prints ``ready`` once it takes commands."""

from __future__ import annotations

import argparse

from celery.signals import worker_ready

from bench.celery_worker import app


@worker_ready.connect  # type: ignore[untyped-decorator]
def announce(**_: object) -> None:
    """The worker's own signal."""
    print("ready", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--concurrency", type=int, required=True)
    concurrency = parser.parse_args().concurrency
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "ERROR"]
    app.worker_main(["worker", "--pool", "prefork", "--concurrency", str(concurrency), "-Q", "idle", *quiet])
