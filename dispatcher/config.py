"""Every setting of the dispatcher: one frozen tree, read once from a mapping, handed down in slices.

The variables are the fields: a field's variable is ``DISPATCHER_``, its record's prefix and its name in capitals, so a limit has
one name everywhere. An empty variable counts as absent. Invariant: a :class:`Config` from ``from_mapping`` is consistent, and
reading a bad mapping reports all its faults at once, by name and never by value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, NamedTuple

from attrs import fields, frozen

from dispatcher.backoff import RetryPolicy
from dispatcher.breaker import BreakerPolicy
from dispatcher.errors import ConfigError
from dispatcher.origins import parse_base_url, parse_origin
from dispatcher.retry_budget import FLOOR_PER_S, RATIO
from dispatcher.settings import METADATA_KEY, Fault, Setting, count, number, server_url, setting, word
from dispatcher.vault import KEYS_VARIABLE, EncryptionKeys, parse_keys

PREFIX = "DISPATCHER_"
LEASE_MARGIN_S = 10.0
"""How much longer a lease must be than a request: a lease that ran out while a call was under way would send it twice."""
PUBLIC_URL_CHARS_MAX = 200
_MIB = 1024 * 1024
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


@frozen
class PostgresConfig:
    """The store."""

    url: str | None = server_url("Postgres to use", schemes=("postgresql", "postgres"), shown_default="embedded server")
    pool_size_max: int = count(8, "connections to Postgres", at_most=1000)
    connect_deadline_s: float = number(10.0, "to connect to Postgres", at_most=600)
    statement_deadline_s: float = number(10.0, "to run one statement, waiting for a connection included", at_most=600)


@frozen
class RedisConfig:
    """The queue."""

    url: str | None = server_url("Redis or Valkey to use", schemes=("redis", "rediss", "unix"), shown_default="embedded server")
    connect_deadline_s: float = number(5.0, "to connect to Redis", at_most=600)
    command_deadline_s: float = number(5.0, "to run one command", at_most=600)


def _parse_public_url(text: str) -> str:
    base = parse_base_url(text)
    if base is None or len(text) > PUBLIC_URL_CHARS_MAX:
        raise Fault(
            f"must be a URL of at most {PUBLIC_URL_CHARS_MAX} characters such as https://notify.example.org, and without a query"
        )
    if base.origin.scheme == "http" and base.origin.host not in _LOOPBACK:
        raise Fault("must be an https:// URL, unless it is of this machine: what stands behind it is for nobody else to read")
    return text.rstrip("/")


@frozen
class SurfaceConfig:
    """The HTTP surface."""

    host: str = word("127.0.0.1", "address to listen on")
    port: int = count(8080, "port to listen on; 0 takes a free one", at_least=0, at_most=65535)
    body_bytes_max: int = count(16 * _MIB, "bytes of one request body", at_least=1024)
    batch_items_max: int = count(5000, "notifications in one batch", at_most=100_000)
    item_bytes_max: int = count(512 * 1024, "bytes of one notification, as handed in and as rendered", at_least=1024)
    listener_buffer_max: int = count(10_000, "events waiting for one slow websocket before it is closed: two for each of a batch")
    listeners_max: int = count(10_000, "websockets at once")
    key_cache_s: float = number(30.0, "how long a revoked API key may still be honoured", at_most=3600)
    public_url: str = setting(
        "",
        "where people reach this over the internet: for links to unsubscribe by; without it there are none",
        _parse_public_url,
        "none",
    )


@frozen
class DispatchConfig:
    """The dispatching of notifications."""

    calls_max: int = count(512, "calls to providers at once")
    in_flight_max: int = count(8192, "claimed notifications held in memory at once")
    organization_in_flight_max: int = count(64, "claimed notifications held in memory at once for one organization")
    organizations_alive_max: int = count(10_000, "organizations held in memory at once")
    lease_s: float = number(60.0, f"how long a claim is held; more than request_deadline_s + {LEASE_MARGIN_S:g}", at_most=86_400)
    request_deadline_s: float = number(20.0, "to get a provider's answer", at_most=3600)
    connect_deadline_s: float = number(5.0, "to connect to a provider, TLS included", at_most=600)
    ledger_tick_s: float = number(0.02, "how long claims and outcomes are gathered into one statement", at_most=10)
    ledger_rows_max: int = count(500, "claims or outcomes in one statement", at_most=10_000)
    idle_s: float = number(60.0, "how long an organization without work stays in memory", at_most=86_400)
    drain_s: float = number(20.0, "how long calls may go on after SIGTERM", at_most=3600)
    history_after_s: float = number(
        7 * 86_400.0,
        "how long what is final stays with what is pending, and its key is remembered",
        at_most=366 * 86_400,
    )
    sweep_s: float = number(15.0, "between two looks for forgotten notifications", at_most=3600)
    cache_ttl_min_s: float = number(300.0, "shortest life of a cached provider config or template", at_most=86_400)
    cache_ttl_max_s: float = number(900.0, "longest life of a cached provider config or template", at_most=86_400)
    attempts_max: int = count(8, "attempts before a notification is given up", at_most=1000)
    retry_base_s: float = number(2.0, "span of the first retry; doubled by each further one", at_most=86_400)
    retry_cap_s: float = number(3600.0, "longest span of a retry", at_most=7 * 86_400)
    retry_hint_cap_s: float = number(3600.0, "longest Retry-After of a provider that is believed", at_most=7 * 86_400)
    retry_ratio: float = number(RATIO, "retries after failures allowed per first attempt", at_most=100)
    retry_floor_per_s: float = number(FLOOR_PER_S, "such retries a second allowed anyway: per provider, per channel", at_most=1e6)
    shards: int = count(16, "parts into which organizations are divided", at_most=4096)
    owner_lease_s: float = number(5.0, "how long a process that says nothing keeps its shards", at_most=3600)
    connections_per_origin_max: int = count(512, "connections to one provider host")
    accept_rows_max: int = count(1000, "accepted notifications in one insert", at_most=10_000)
    accept_wait_max_s: float = number(2.0, "how long inserts may wait for Postgres before requests are turned away", at_most=600)
    accept_pending_max: int = count(20_000, "notifications waiting for their insert before requests are turned away")

    metrics_organizations_max: int = count(
        100, "organizations counted by name in metrics; others are counted together", at_least=0
    )

    @property
    def retry_policy(self) -> RetryPolicy:
        """How long to wait between attempts."""
        return RetryPolicy(self.retry_base_s, self.retry_cap_s, self.retry_hint_cap_s)


def _parse_origins(text: str) -> tuple[str, ...]:
    found = [parse_origin(part.strip().rstrip("/")) for part in text.split(",") if part.strip()]
    if None in found:
        raise Fault("must be origins such as https://mail.example.org or http://127.0.0.1:8025, separated by commas")
    return tuple(dict.fromkeys(str(origin) for origin in found))


def _parse_keys(text: str) -> EncryptionKeys | None:
    try:
        return parse_keys(text)
    except ConfigError as error:
        raise Fault(str(error).removeprefix(f"{KEYS_VARIABLE}: ")) from None


_NO_ORIGINS: tuple[str, ...] = ()
_NO_KEYS: EncryptionKeys | None = None


@frozen
class Config:
    """The whole tree."""

    postgres: PostgresConfig = PostgresConfig()
    redis: RedisConfig = RedisConfig()
    surface: SurfaceConfig = SurfaceConfig()
    dispatch: DispatchConfig = DispatchConfig()
    breaker: BreakerPolicy = BreakerPolicy()
    data_dir: str = word(".dispatcher", "folder of the embedded Postgres and Valkey", shown_default="~/.local/share/dispatcher")
    encryption_keys: EncryptionKeys | None = setting(
        _NO_KEYS, "keys for credentials: id:base64 of 32 bytes, the sealing one first, separated by commas", _parse_keys, "none"
    )
    provider_urls_extra: tuple[str, ...] = setting(
        _NO_ORIGINS,
        "origins a provider's base_url may name beside its own hosts, for example a sandbox; mail servers: smtp:// or smtps://",
        _parse_origins,
        "none",
    )
    provider_ca_file: str = word(
        "", "PEM file of authorities to trust beside the system's, when calling providers", shown_default="none"
    )
    log_level: str = word("info", "least severity that is logged", among=("debug", "info", "warning", "error"))


SECTIONS: Mapping[str, tuple[str, type[Any]]] = MappingProxyType(
    {
        "postgres": ("POSTGRES_", PostgresConfig),
        "redis": ("REDIS_", RedisConfig),
        "surface": ("", SurfaceConfig),
        "dispatch": ("", DispatchConfig),
        "breaker": ("BREAKER_", BreakerPolicy),
    }
)
"""Fields of :class:`Config` that are records themselves, with the prefix of their variables."""


class Row(NamedTuple):
    """One line of the table of settings."""

    variable: str
    default: str
    meaning: str


class _Variable(NamedTuple):
    section: str | None
    name: str
    default: Any
    setting: Setting


def _variables() -> dict[str, _Variable]:
    found: dict[str, _Variable] = {}
    for attribute in fields(Config):
        prefix, record = SECTIONS.get(attribute.name, ("", None))
        section = None if record is None else attribute.name
        for leaf in (attribute,) if record is None else fields(record):
            variable = f"{PREFIX}{prefix}{leaf.name.upper()}"
            found[variable] = _Variable(section, leaf.name, leaf.default, leaf.metadata[METADATA_KEY])
    return found


_VARIABLES = _variables()


def describe() -> list[Row]:
    """The table of all settings, in the order of the tree."""
    return [
        Row(
            variable,
            str(known.default) if known.setting.shown_default is None else known.setting.shown_default,
            known.setting.meaning,
        )
        for variable, known in _VARIABLES.items()
    ]


def from_mapping(mapping: Mapping[str, str]) -> Config:
    """Read all settings from a mapping such as the environment; ``HOME`` is looked at for the data folder.

    Raises ConfigError that lists every fault, one a line.
    """
    faults = [_unknown(name) for name in sorted(mapping) if name.startswith(PREFIX) and name not in _VARIABLES]
    sections: dict[str | None, dict[str, Any]] = {None: {}, **{section: {} for section in SECTIONS}}
    for variable, known in _VARIABLES.items():
        text = mapping.get(variable, "").strip()
        if not text:
            continue
        try:
            sections[known.section][known.name] = known.setting.parse(text)
        except Fault as fault:
            faults.append(f"{variable}: {fault}")
    top = sections.pop(None)
    top["data_dir"] = _data_dir(top.get("data_dir"), mapping.get("HOME", ""))
    config = Config(**top, **{section: SECTIONS[section][1](**values) for section, values in sections.items() if section})
    faults.extend(_inconsistencies(config))
    if faults:
        raise ConfigError("\n".join(faults))
    return config


def _unknown(name: str) -> str:
    close = get_close_matches(name, _VARIABLES, n=1)
    return f"{name}: no such setting" + (f"; did you mean {close[0]}?" if close else "; see dispatcher --help for all of them")


def _data_dir(given: str | None, home: str) -> str:
    if given is None:
        return f"{home.rstrip('/')}/.local/share/dispatcher" if home else ".dispatcher"
    return home.rstrip("/") + given[1:] if home and (given == "~" or given.startswith("~/")) else given


def _inconsistencies(config: Config) -> Iterator[str]:
    """Faults of two settings together. A setting that is itself at fault stands at its default here."""
    dispatch, breaker = config.dispatch, config.breaker
    if dispatch.lease_s <= dispatch.request_deadline_s + LEASE_MARGIN_S:
        yield f"DISPATCHER_LEASE_S: must be more than DISPATCHER_REQUEST_DEADLINE_S + {LEASE_MARGIN_S:g}"
    for low, high, low_value, high_value in (
        ("CONNECT_DEADLINE_S", "REQUEST_DEADLINE_S", dispatch.connect_deadline_s, dispatch.request_deadline_s),
        ("CACHE_TTL_MIN_S", "CACHE_TTL_MAX_S", dispatch.cache_ttl_min_s, dispatch.cache_ttl_max_s),
        ("RETRY_BASE_S", "RETRY_CAP_S", dispatch.retry_base_s, dispatch.retry_cap_s),
        ("BREAKER_OPEN_BASE_S", "BREAKER_OPEN_CAP_S", breaker.open_base_s, breaker.open_cap_s),
    ):
        if low_value > high_value:
            yield f"{PREFIX}{low}: must not be more than {PREFIX}{high}"
    # A probe cut off before it is even slow is an effect that nobody knows of, and its provider's breaker never closes.
    if breaker.probe_deadline_s < min(breaker.slow_call_s, dispatch.request_deadline_s):
        yield (
            f"{PREFIX}BREAKER_PROBE_DEADLINE_S: must not be less than {PREFIX}BREAKER_SLOW_CALL_S, "
            f"unless {PREFIX}REQUEST_DEADLINE_S is"
        )
