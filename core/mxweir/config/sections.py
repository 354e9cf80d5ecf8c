"""Every key there is, with its reader and its default.

`conf/mxweir.toml` explains each to the operator; a test compares the two.
"""

from dataclasses import dataclass, field
from pathlib import Path

from mxweir.config import readers as read
from mxweir.config.schema import REQUIRED, optional_section, section, sections, setting
from mxweir.endpoint import Endpoint
from mxweir.facts import CONTENT_KEYS, KEYS
from mxweir.ratelimit.rate import Rate
from mxweir.redis.url import Url

UNLIMITED = "unlimited"
"""What an override says when a limit is not to count a key at all."""


def _overrides(value: object) -> dict[str, Rate | None]:
    if not isinstance(value, dict):
        raise ValueError('overrides are a table: { "postmaster@example.org" = "2000/minute" }')
    return dict(read.all_of(_override, value.items()))


def _override(item: tuple[str, object]) -> tuple[str, Rate | None]:
    key, rate = item
    try:
        return key, None if rate == UNLIMITED else read.rate(rate)
    except ValueError as error:
        raise ValueError(f'"{key}": {error}') from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Policyd:
    """The policy daemon; durations in seconds."""

    listen: tuple[Endpoint, ...] = setting(
        read.one_or_more(read.address), ["unix:/var/spool/postfix/mxweir/policy"]
    )
    maps: tuple[Endpoint, ...] = setting(read.listed(read.address), ["unix:/var/spool/postfix/mxweir/maps"])
    socket_mode: int = setting(read.file_mode, "0660")
    socket_group: str = setting(read.text, "")
    http: Endpoint | None = setting(read.loopback, "inet:127.0.0.1:10042")
    workers: int = setting(read.integer(1, 64), 1)
    deadline: float = setting(read.duration("10ms", "30s"), "250ms")
    drain: float = setting(read.duration("0s", "10m"), "5s")
    max_connections: int = setting(read.integer(1, 65536), 4096)
    max_keys: int = setting(read.integer(1000, 100_000_000), 1_000_000)
    save_every: float = setting(read.duration("1s", "1d"), "1m")


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """One spam scanner, at one address or several; `max_scans` for each of them, None: by the type."""

    type: str = setting(read.one_of("spamd", "rspamd"), REQUIRED)
    address: tuple[Endpoint, ...] = setting(read.one_or_more(read.address), REQUIRED)
    max_scans: int | None = setting(read.integer(1, 1000), None)
    tls: bool = setting(read.boolean, False)
    ca: Path | None = setting(read.path, None)
    password: str | None = setting(read.text, None, secret=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """When an address of an engine is left alone; durations in seconds, shares from 0 to 1.

    `slow_after` None: half of the milter's deadline.
    """

    window: float = setting(read.duration("1s", "1h"), "30s")
    min_calls: int = setting(read.integer(1, 10_000), 5)
    failures: float = setting(read.share, "50%")
    slow: float = setting(read.share, "80%")
    slow_after: float | None = setting(read.duration("10ms", "4m"), None)
    pause: float = setting(read.duration("100ms", "1h"), "10s")
    probes: int = setting(read.integer(1, 100), 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class MilterPolicy:
    """What goes over the milter's own settings for some recipients; None: as there."""

    name: str = setting(read.name, REQUIRED)
    recipient_domain: tuple[str, ...] | None = setting(read.one_or_more(read.mail_domain), None)
    tenant: tuple[str, ...] | None = setting(read.one_or_more(read.text), None)
    tag_at: float | None = setting(read.number, None)
    rewrite_subject_at: float | None = setting(read.threshold, None)
    quarantine_at: float | None = setting(read.threshold, None)
    reject_at: float | None = setting(read.threshold, None)
    subject_tag: str | None = setting(read.text, None)
    reject_text: str | None = setting(read.reply_text, None)
    unscanned: str | None = setting(read.one_of("accept", "defer", "quarantine"), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Milter:
    """The milter; durations in seconds, sizes in bytes, thresholds in the engine's points."""

    front: str = setting(read.one_of("asyncio", "libmilter"), "asyncio")
    listen: Endpoint = setting(read.address, "unix:/var/spool/postfix/mxweir/milter")
    socket_mode: int = setting(read.file_mode, "0660")
    socket_group: str = setting(read.text, "")
    http: Endpoint | None = setting(read.loopback, "inet:127.0.0.1:10044")
    deadline: float = setting(read.duration("100ms", "4m"), "8s")
    drain: float = setting(read.duration("0s", "10m"), "10s")
    max_scan_size: int = setting(read.size("1KiB", "1GiB"), "512KiB")
    max_memory: int = setting(read.size("1MiB", "1024GiB"), "256MiB")
    max_sessions: int = setting(read.integer(1, 65536), 2048)
    max_keys: int = setting(read.integer(1000, 100_000_000), 200_000)
    save_every: float = setting(read.duration("1s", "1d"), "1m")
    tag_at: float = setting(read.number, 5.0)
    rewrite_subject_at: float = setting(read.threshold, "never")
    quarantine_at: float = setting(read.threshold, "never")
    reject_at: float = setting(read.threshold, "never")
    subject_tag: str = setting(read.text, "[SPAM]")
    reject_text: str = setting(read.reply_text, "Message refused as spam")
    unscanned: str = setting(read.one_of("accept", "defer", "quarantine"), "accept")
    skip: tuple[str, ...] = setting(
        read.several_of("authenticated", "mynetworks"), ["authenticated", "mynetworks"]
    )
    slot_wait: float = setting(read.duration("0s", "1m"), "500ms")
    engine: tuple[Engine, ...] = sections(Engine)
    breaker: Breaker = section(Breaker)
    policy: tuple[MilterPolicy, ...] = sections(MilterPolicy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Redis:
    """Where several hosts count together; `timeout` in seconds, `degraded_factor` times an amount.

    `tls_name` "": the certificate has the name of the host that was connected to.
    """

    url: Url = setting(read.redis_url, REQUIRED, secret=True)
    prefix: str = setting(read.key_prefix, "mxweir")
    timeout: float = setting(read.duration("5ms", "10s"), "100ms")
    degraded_factor: float = setting(read.factor, 1.0)
    ca: Path | None = setting(read.path, None)
    cert: Path | None = setting(read.path, None)
    key: Path | None = setting(read.path, None)
    tls_name: str = setting(read.text, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Postgres:
    """Where the relay domains of several hosts are kept; durations in seconds."""

    dsn: str = setting(read.text, REQUIRED, secret=True)
    view: str = setting(read.relation, "")
    connect_timeout: float = setting(read.duration("2s", "1m"), "5s")
    query_timeout: float = setting(read.duration("1s", "10m"), "30s")
    poll: float = setting(read.duration("1s", "1h"), "30s")
    verify_every: float = setting(read.duration("1m", "365d"), "1d")


@dataclass(frozen=True, slots=True, kw_only=True)
class Domains:
    """Relay domains; `max_shrink` is a share (0 to 1), `max_age` and `unknown_for` are in seconds."""

    file: Path = setting(read.path, "/etc/mxweir/domains")
    max_shrink: float = setting(read.share, "20%")
    max_age: float = setting(read.duration("1m", "365d"), "7d")
    unconfirmed: str = setting(read.one_of("defer", "reject"), "defer")
    postfix_lmdb: Path | None = setting(read.path, None)
    unknown_for: float = setting(read.duration("0s", "5m"), "10s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """How clients and addresses are folded into keys."""

    ipv4_prefix: int = setting(read.integer(8, 32), 24)
    ipv6_prefix: int = setting(read.integer(16, 128), 64)
    recipient_delimiter: str = setting(read.delimiter, "+")
    mynetworks: tuple[read.Network, ...] = setting(read.listed(read.network), ["127.0.0.0/8", "::1/128"])


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessEntry:
    """One line of the access list: `block` or `allow` names the key; `expires` in seconds since the epoch."""

    block: str | None = setting(read.one_of(*KEYS), None)
    allow: str | None = setting(read.one_of(*KEYS), None)
    value: str = setting(read.text, REQUIRED)
    reason: str = setting(read.text, "")
    expires: float | None = setting(read.moment, None)


def by_content(*keys: str) -> bool:
    """Whether one of these keys is in the message's header only."""
    return any(key in CONTENT_KEYS for key in keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitRule:
    """One rate limit as written; `rate` None in `overrides` means unlimited."""

    name: str = setting(read.name, REQUIRED)
    key: tuple[str, ...] = setting(read.one_or_more(read.one_of(*KEYS, *CONTENT_KEYS)), REQUIRED)
    rate: Rate = setting(read.rate, REQUIRED)
    burst: int | None = setting(read.integer(1, 10**12), None)
    window: bool = setting(read.boolean, False)
    unit: str = setting(read.one_of("recipient", "message", "byte"), "recipient")
    distinct: str = setting(read.one_of("", *KEYS, *CONTENT_KEYS), "")
    refuse: str = setting(read.one_of("reject", "defer"), "reject")
    mode: str = setting(read.one_of("enforce", "observe"), "enforce")
    overrides: dict[str, Rate | None] = setting(_overrides, {})

    @property
    def by_content(self) -> bool:
        """Whether it needs the message's header: then the milter counts, and the policy daemon does not."""
        return by_content(*self.key, self.distinct)


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """What is logged and how; `decisions` bounds the lines that strangers can cause."""

    format: str = setting(read.one_of("logfmt", "json"), "logfmt")
    level: str = setting(read.one_of("debug", "info", "warning", "error"), "info")
    decisions: Rate = setting(read.rate, "1000/second")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The whole configuration, checked; `warnings` are sentences about what is probably not meant."""

    state_dir: Path = setting(read.path, "/var/lib/mxweir")
    policyd: Policyd = section(Policyd)
    milter: Milter = section(Milter)
    redis: Redis | None = optional_section(Redis)
    postgres: Postgres | None = optional_section(Postgres)
    domains: Domains = section(Domains)
    keys: Keys = section(Keys)
    access: tuple[AccessEntry, ...] = sections(AccessEntry)
    limit: tuple[LimitRule, ...] = sections(LimitRule)
    log: Log = section(Log)
    warnings: tuple[str, ...] = field(default=(), metadata={"derived": True})
