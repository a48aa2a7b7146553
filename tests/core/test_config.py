from __future__ import annotations

import base64
from typing import Any

import pytest
from attrs import fields
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.config import (
    LEASE_MARGIN_S,
    PREFIX,
    SECTIONS,
    Config,
    DispatchConfig,
    PostgresConfig,
    RedisConfig,
    SurfaceConfig,
    describe,
    from_mapping,
)
from dispatcher.errors import ConfigError

KEY = base64.b64encode(bytes(range(32))).decode()


def faults(**variables: str) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        from_mapping({PREFIX + name: value for name, value in variables.items()})
    assert refused.value.__context__ is None
    return str(refused.value).split("\n")


def test_nothing_given_is_a_whole_configuration() -> None:
    config = from_mapping({})

    assert config == Config()
    assert config.postgres.url is None
    assert config.redis.url is None
    assert config.encryption_keys is None
    assert config.provider_urls_extra == ()
    assert config.data_dir == ".dispatcher"


def test_every_variable_reaches_its_field() -> None:
    config = from_mapping(
        {
            "DISPATCHER_POSTGRES_URL": "postgresql://user:pw@host/name?sslmode=verify-full",
            "DISPATCHER_POSTGRES_POOL_SIZE_MAX": "3",
            "DISPATCHER_REDIS_URL": "rediss://:pw@host:6380/2",
            "DISPATCHER_DATA_DIR": "/var/lib/dispatcher",
            "DISPATCHER_HOST": "0.0.0.0",
            "DISPATCHER_PORT": "0",
            "DISPATCHER_ENCRYPTION_KEYS": f"k1:{KEY}",
            "DISPATCHER_LOG_LEVEL": "Warning",
            "DISPATCHER_PROVIDER_URLS_EXTRA": "http://127.0.0.1:8025, https://Mail.Example.org/,http://127.0.0.1:8025",
            "DISPATCHER_CALLS_MAX": "7",
            "DISPATCHER_LEASE_S": "90.5",
            "DISPATCHER_BREAKER_PROBES": "5",
            "PATH": "/bin",
        }
    )

    assert config.postgres == PostgresConfig("postgresql://user:pw@host/name?sslmode=verify-full", pool_size_max=3)
    assert config.redis == RedisConfig("rediss://:pw@host:6380/2")
    assert config.data_dir == "/var/lib/dispatcher"
    assert config.surface == SurfaceConfig(host="0.0.0.0", port=0)
    assert config.encryption_keys is not None
    assert config.encryption_keys.ids == ("k1",)
    assert config.log_level == "warning"
    assert config.provider_urls_extra == ("http://127.0.0.1:8025", "https://mail.example.org:443")
    assert config.dispatch == DispatchConfig(calls_max=7, lease_s=90.5)
    assert config.breaker.probes == 5


def test_an_empty_variable_counts_as_absent() -> None:
    assert from_mapping({row.variable: "  " for row in describe()}) == Config()


def test_all_faults_are_told_at_once_and_by_name() -> None:
    told = faults(PORT="99999", LEASE_S="soon", REDIS_URL="http://host", NONSENSE="1", ENCRYPTION_KEYS="k1:AAAA")

    assert [line.partition(":")[0] for line in sorted(told)] == [
        "DISPATCHER_ENCRYPTION_KEYS",
        "DISPATCHER_LEASE_S",
        "DISPATCHER_NONSENSE",
        "DISPATCHER_PORT",
        "DISPATCHER_REDIS_URL",
    ]
    assert "DISPATCHER_ENCRYPTION_KEYS: key 1 must be exactly 32 bytes, but is 3" in told


def test_a_misspelt_name_is_a_fault_with_a_suggestion() -> None:
    assert faults(POSTGRES_URI="x") == ["DISPATCHER_POSTGRES_URI: no such setting; did you mean DISPATCHER_POSTGRES_URL?"]
    assert faults(QQQQQQQQQQQQQQQQQQQQQQQQ="x") == [
        "DISPATCHER_QQQQQQQQQQQQQQQQQQQQQQQQ: no such setting; see dispatcher --help for all of them"
    ]


def test_a_lease_must_outlast_a_request_by_a_margin() -> None:
    told = faults(LEASE_S="30", REQUEST_DEADLINE_S="20")

    assert told == [f"DISPATCHER_LEASE_S: must be more than DISPATCHER_REQUEST_DEADLINE_S + {LEASE_MARGIN_S:g}"]
    assert from_mapping({"DISPATCHER_LEASE_S": "30.1", "DISPATCHER_REQUEST_DEADLINE_S": "20"}).dispatch.lease_s == 30.1


@pytest.mark.parametrize(
    ("low", "high"),
    [
        ("CONNECT_DEADLINE_S", "REQUEST_DEADLINE_S"),
        ("CACHE_TTL_MIN_S", "CACHE_TTL_MAX_S"),
        ("RETRY_BASE_S", "RETRY_CAP_S"),
        ("BREAKER_OPEN_BASE_S", "BREAKER_OPEN_CAP_S"),
    ],
)
def test_a_lower_bound_must_not_pass_its_upper_one(low: str, high: str) -> None:
    assert faults(**{low: "9", high: "8"}) == [f"DISPATCHER_{low}: must not be more than DISPATCHER_{high}"]


def test_a_probe_must_not_be_cut_off_before_it_is_slow() -> None:
    told = faults(BREAKER_PROBE_DEADLINE_S="14", BREAKER_SLOW_CALL_S="15")

    (fault,) = told
    assert fault.startswith("DISPATCHER_BREAKER_PROBE_DEADLINE_S: must not be less than DISPATCHER_BREAKER_SLOW_CALL_S, unless ")
    for fine in ({"BREAKER_PROBE_DEADLINE_S": "15"}, {"BREAKER_PROBE_DEADLINE_S": "8", "REQUEST_DEADLINE_S": "8"}):
        from_mapping({PREFIX + name: value for name, value in fine.items()})


def test_the_data_folder_lies_under_the_home_unless_it_is_given() -> None:
    assert from_mapping({"HOME": "/home/ann/"}).data_dir == "/home/ann/.local/share/dispatcher"
    assert from_mapping({"HOME": "/home/ann", "DISPATCHER_DATA_DIR": "~/d"}).data_dir == "/home/ann/d"
    assert from_mapping({"HOME": "/home/ann", "DISPATCHER_DATA_DIR": "~"}).data_dir == "/home/ann"
    assert from_mapping({"HOME": "/home/ann", "DISPATCHER_DATA_DIR": "/d/~"}).data_dir == "/d/~"
    assert from_mapping({"DISPATCHER_DATA_DIR": "~/d"}).data_dir == "~/d"


@pytest.mark.parametrize("text", ["http://user:hush@host", "ftp://host", "host:80", "http://host/path", "http://host, ,nope"])
def test_an_extra_provider_url_is_an_origin(text: str) -> None:
    (told,) = faults(PROVIDER_URLS_EXTRA=text)

    assert told.startswith("DISPATCHER_PROVIDER_URLS_EXTRA: must be origins such as")


@given(st.sampled_from([row.variable for row in describe()]), st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_no_value_is_ever_repeated(variable: str, text: str) -> None:
    told = ""
    try:
        from_mapping({variable: f"hush{text}hush"})
    except ConfigError as refused:
        told = str(refused)

    assert "hush" not in told


def test_passwords_and_keys_do_not_stand_in_the_repr() -> None:
    shown = repr(
        from_mapping(
            {
                "DISPATCHER_POSTGRES_URL": "postgresql://user:hush@host/name",
                "DISPATCHER_REDIS_URL": "redis://:hush@host",
                "DISPATCHER_ENCRYPTION_KEYS": f"k1:{KEY}",
            }
        )
    )

    assert "hush" not in shown
    assert KEY not in shown
    assert repr(bytes(range(32))) not in shown


def test_the_table_has_one_row_for_every_leaf_with_its_unit_last() -> None:
    rows = describe()
    leaves = [field.name for field in fields(Config) if field.name not in SECTIONS]
    leaves += [leaf.name for _, record in SECTIONS.values() for leaf in fields(record)]

    assert len(rows) == len(leaves) == len({row.variable for row in rows})
    assert all(row.variable.startswith(PREFIX) and row.default and row.meaning for row in rows)
    assert sorted(row.variable.rpartition("_")[2] for row in rows) == sorted(leaf.upper().rpartition("_")[2] for leaf in leaves)


def test_the_table_shows_what_is_used_by_default() -> None:
    table = {row.variable: row.default for row in describe()}
    numbers = {name: text for name, text in table.items() if text.replace(".", "").isdigit()}
    config: Any = from_mapping(numbers)

    assert config == Config()
    assert table["DISPATCHER_POSTGRES_URL"] == table["DISPATCHER_REDIS_URL"] == "embedded server"


def test_the_retry_policy_is_taken_from_the_settings() -> None:
    policy = DispatchConfig(retry_base_s=1.0, retry_cap_s=2.0, retry_hint_cap_s=3.0).retry_policy

    assert (policy.base_s, policy.cap_s, policy.hint_cap_s) == (1.0, 2.0, 3.0)
