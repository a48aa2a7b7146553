"""The sandbox as a program."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import trio
from click.testing import CliRunner

from dispatcher_sandbox.command import sandbox_command, serve
from dispatcher_sandbox.doors import DOORS
from dispatcher_sandbox.sandbox import Sandbox
from house import Tls
from sandbox_mails import AUTHORIZATION, mail

ROOT = Path(__file__).parents[2]
HEADERS = {"authorization": AUTHORIZATION}


@contextmanager
def running(*options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A sandbox of its own process, and its URL."""
    command = [sys.executable, "-m", "dispatcher_sandbox", "--port", "0", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "http")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            for _ in DOORS:
                process.stdout.readline()
            url = re.search(r"https?://[^\s/]+", line)
            assert url is not None, line
            yield process, url[0]
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_is_serves_and_ends_quietly(number: signal.Signals) -> None:
    with running() as (process, url):
        accepted = httpx.post(f"{url}/v3/mail/send", json=mail(), headers=HEADERS)
        summary = httpx.get(f"{url}/_sandbox/ledger/summary").json()
        process.send_signal(number)
        out, err = process.communicate(timeout=30)

        assert accepted.status_code == 202
        assert summary["accepted"] == 1
        assert process.returncode == 0
        assert (out, err) == ("", "")


def test_its_options_set_the_behaviour() -> None:
    options = [
        "--latency-s=0.01", "--error-mix=503=0.1,429=0.2", "--drop-after-accept=0.3", "--rate-limit-per-s=50",
        "--outage=unavailable", "--honour-idempotency-keys",
    ]  # fmt: skip
    with running(*options) as (_, url):
        behaviour = httpx.get(f"{url}/_sandbox/behaviour").json()
        statistics = httpx.get(f"{url}/_sandbox/statistics").json()

    assert behaviour["latency_s"] == 0.01
    assert behaviour["error_mix"] == {"503": 0.1, "429": 0.2}
    assert behaviour["drop_after_accept"] == 0.3
    assert behaviour["rate_limit_per_s"] == 50
    assert behaviour["outage"] == "unavailable"
    assert behaviour["honour_idempotency_keys"] is True
    assert statistics["cpu_s"] > 0


def test_a_certificate_makes_it_https(tls: Tls) -> None:
    with running("--tls-certificate", str(tls.certificate_file), "--tls-key", str(tls.key_file)) as (_, url):
        assert url.startswith("https://")
        health = httpx.get(f"{url}/_sandbox/health", verify=tls.client_context())

    assert health.json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--error-mix=often"], "503=0.1"),
        (["--error-mix=200=0.1"], "error_mix"),
        (["--latency-s=-1"], "latency_s"),
        (["--outage=tuesday"], "tuesday"),
        (["--tls-certificate=/nowhere"], "/nowhere"),
        (["--tls-certificate", __file__], "PEM"),
        (["--tls-key", __file__], "--tls-certificate"),
        (["--host=192.0.2.1"], "can not listen on 192.0.2.1"),
    ],
)
def test_a_wrong_option_is_one_clear_line(options: list[str], named: str) -> None:
    result = CliRunner().invoke(sandbox_command, ["--port=0", *options])

    assert result.exit_code != 0
    assert named in result.output.splitlines()[-1]
    assert "Traceback" not in result.output


def test_a_taken_port_is_one_clear_line() -> None:
    with running() as (_, url):
        result = CliRunner().invoke(sandbox_command, [f"--port={httpx.URL(url).port}"])

    assert result.exit_code == 1
    assert "can not listen on 127.0.0.1" in result.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_serving_ends_with_a_signal(number: signal.Signals) -> None:
    urls: list[str] = []

    def started(sandbox: Sandbox) -> None:
        urls.append(sandbox.url)
        signal.raise_signal(number)

    with trio.fail_after(30):
        await serve("127.0.0.1", 0, started=started)

    assert urls[0].startswith("http://127.0.0.1:")
