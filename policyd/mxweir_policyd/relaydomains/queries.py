"""Every query that mxweir sends to PostgreSQL about relay domains; no I/O.

What a daemon sends is in `queries`: looked up by hash, or read in the order of
an index and cut off by LIMIT, so that it costs the same however large the table
is. `audit` has the planner confirm it. Of what the commands send, ADD, REMOVE
and ANY are such queries too; IMPORT compares the whole table with a whole file, so it
reads all of both, and no daemon sends it.

The table is ours, `mxweir.domains`, or a view of a customer's that has the same
columns. Ours says by transaction id what has changed, and remembers what was
removed. A view has only a time, which knows nothing of removals and may be late:
a transaction sets it long before it commits.
"""

from dataclasses import dataclass

from mxweir.domains.match import PARENTS
from mxweir.domains.record import DISABLED, FROM_POSTGRES, Record

TABLE = "mxweir.domains"
"""The table that `mxweir domains init` makes."""

CHANNEL = "mxweir_domains"
"""Where a change is notified (NOTIFY); the payload is empty, so that many changes are one notification."""

BATCH = 5_000
"""Rows that one query gives at most: some 600 kB."""

RANGE = 20_000
"""Rows that one checksum covers."""

_NONE = Record("", origins=FROM_POSTGRES).encode()[0]
_SUBDOMAINS = Record("", "", True, FROM_POSTGRES).encode()[0] - _NONE

# What the replica stores (mxweir.domains.record), made by the server: nothing is taken apart on the way. In a
# customer's view each may be NULL: a domain that nobody has switched off is not refused.
_STORED = f"""set_byte('\\x00'::bytea, 0, {_NONE}
    + CASE WHEN include_subdomains THEN {_SUBDOMAINS} ELSE 0 END
    + CASE WHEN NOT enabled THEN {DISABLED} ELSE 0 END)
    || convert_to(coalesce(next_hop, ''), 'UTF8') || '\\x00'::bytea
    || convert_to(coalesce(tenant, ''), 'UTF8') || '\\x00'::bytea
    || convert_to(coalesce(name, ''), 'UTF8')"""

LAST = b"\xff" * 32
"""No hash lies behind it."""

_PLANNING = {
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_sort": "off",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
}

PLANNING = "; ".join(f"SET {name} = {value}" for name, value in _PLANNING.items())
"""How the planner is to go about it on our connections: each of our queries has an index to go by.

Left alone, it reads a table of some hundred thousand rows from end to end and
sorts it, for each batch again: rows in the order of hashes look dear to it.
"""

OVERLAP = "15 minutes"
"""How long a transaction on a customer's table may take before its rows are found only by the full verify."""

_MIDDLE = b"\x7f" * 32

# Of a primary, that which it writes on: the last checkpoint is of the former one for minutes after a
# failover, and meanwhile transaction ids that were lost with it are given again.
_TIMELINE = """CASE WHEN pg_is_in_recovery() THEN timeline_id
    ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int END"""

# A hot standby does not name the transactions that are open, only the oldest of them.
_SNAPSHOT = """CASE WHEN pg_is_in_recovery()
    THEN concat_ws(':', pg_snapshot_xmin(pg_current_snapshot()), pg_snapshot_xmax(pg_current_snapshot()))
    ELSE pg_current_snapshot()::text END"""

# Rows of another cluster's backup may have transaction ids that are still to come.
_SINCE = "(version, hash) > (%(mark)s::xid8, %(after)s) AND version < pg_snapshot_xmax(pg_current_snapshot())"

# Another database of the same cluster, a view in place of a table, a table that was dropped and restored: a
# mark of the one says nothing of the other.
_TABLE_OF = "(SELECT oid FROM pg_database WHERE datname = current_database()), '{}'::regclass::oid"


@dataclass(frozen=True, slots=True)
class Query:
    """One query: its text with named parameters, and what the audit needs to judge it.

    `rows` is the largest number of rows that it has to touch, `sample` values
    with which it is explained, as PostgreSQL writes them.
    """

    name: str
    text: str
    rows: int
    sample: dict[str, object]


@dataclass(frozen=True, slots=True)
class Queries:
    """The queries of one table or view."""

    find: Query
    """(hash, stored) of those of `hashes` that are there."""
    fill: Query
    """(hash, stored) in the order of hashes, from behind `after` up to and with `end`."""
    digest: Query
    """(count, checksum, last hash in hexadecimal) of the next RANGE rows behind `after`."""
    point: Query
    """(identity, mark, time): which table, and where it stands; `changed` and `removed` go on there."""
    changed: Query
    """(hash, stored, mark) of rows that changed, in the order of marks, from behind (`mark`, `after`)."""
    removed: Query | None
    """(hash, stored or NULL, mark) of rows that were removed; stored if the row is there again."""
    late: tuple[Query, ...]
    """The same two for the transactions `open` alone."""

    def all(self) -> tuple[Query, ...]:
        """Each of them, for the audit."""
        found = (self.find, self.fill, self.digest, self.point, self.changed, self.removed, *self.late)
        return tuple(query for query in found if query is not None)


def queries(view: str = "") -> Queries:
    """The queries of our table, or of a customer's view (its name as SQL writes it)."""
    source = view or TABLE
    return Queries(
        find=_find(source),
        fill=_fill(source),
        digest=_digest(source),
        point=_point(view),
        changed=_changed_by_time(source) if view else _changed(),
        removed=None if view else _removed(),
        late=() if view else (_late(_removed()), _late(_changed())),
    )


def _find(source: str) -> Query:
    text = f"SELECT hash, {_STORED} FROM {source} WHERE hash = ANY(%(hashes)s::bytea[])"
    keys = 1 + PARENTS
    return Query("find", text, keys, {"hashes": [bytes([i]) * 32 for i in range(keys)]})


def _fill(source: str) -> Query:
    text = f"""SELECT hash, {_STORED} FROM {source}
WHERE hash > %(after)s AND hash <= %(end)s ORDER BY hash LIMIT {BATCH}"""
    return Query("fill", text, BATCH, {"after": _MIDDLE, "end": LAST})


def _digest(source: str) -> Query:
    text = f"""SELECT count(*),
    coalesce(sha256(string_agg(hash || stored, ''::bytea ORDER BY hash)), sha256('')),
    coalesce(max(encode(hash, 'hex') COLLATE "C"), '')
FROM (SELECT hash, {_STORED} AS stored FROM {source}
    WHERE hash > %(after)s ORDER BY hash LIMIT {RANGE}) part"""
    return Query("digest", text, RANGE, {"after": _MIDDLE})


def _point(view: str) -> Query:
    mark = f"(now() - interval '{OVERLAP}')::text" if view else _SNAPSHOT
    text = f"""SELECT concat_ws('/', system_identifier, {_TIMELINE}, {_TABLE_OF.format(view or TABLE)}),
    {mark}, extract(epoch FROM now())::float8
FROM pg_control_system(), pg_control_checkpoint()"""
    return Query("point", text, 1, {})


def _changed() -> Query:
    text = f"""SELECT hash, {_STORED}, version::text AS mark FROM {TABLE}
WHERE {_SINCE} ORDER BY version, hash LIMIT {BATCH}"""
    return Query("changed", text, BATCH, {"mark": "3", "after": _MIDDLE})


def _changed_by_time(source: str) -> Query:
    # A row without a name has no hash; the comparison by pairs alone would give it.
    text = f"""SELECT hash, {_STORED}, changed::text AS mark FROM {source}
WHERE (changed, hash) > (%(mark)s::timestamptz, %(after)s) AND hash IS NOT NULL
ORDER BY changed, hash LIMIT {BATCH}"""
    return Query("changed", text, BATCH, {"mark": "2000-01-01", "after": _MIDDLE})


def _removed() -> Query:
    text = f"""SELECT gone.hash, (SELECT {_STORED} FROM {TABLE} back WHERE back.hash = gone.hash),
    gone.version::text AS mark
FROM (SELECT hash, version FROM mxweir.removed WHERE {_SINCE} ORDER BY version, hash LIMIT {BATCH}) gone
ORDER BY gone.version, gone.hash"""
    return Query("removed", text, BATCH, {"mark": "3", "after": _MIDDLE})


def _late(query: Query) -> Query:
    text = query.text.replace(_SINCE, f"version = ANY(%(open)s::xid8[]) AND {_SINCE}")
    return Query(f"{query.name} late", text, query.rows, query.sample | {"open": ["3", "4", "1000"]})


ADD = Query(
    "add",
    f"""INSERT INTO {TABLE} AS had (name, unicode_name, next_hop, include_subdomains, tenant)
VALUES (%(name)s, %(unicode_name)s, %(next_hop)s, %(include_subdomains)s, coalesce(%(tenant)s, ''))
ON CONFLICT (hash) DO UPDATE SET next_hop = excluded.next_hop, enabled = true,
    include_subdomains = had.include_subdomains OR excluded.include_subdomains,
    tenant = coalesce(%(tenant)s, had.tenant)
RETURNING xmax = 0""",
    1,
    {"name": "a.example", "unicode_name": "", "next_hop": "", "include_subdomains": False, "tenant": None},
)
"""Adds one domain, or changes it; gives whether it is new. Adding takes nothing away."""

ANY = Query("any", f"SELECT hash FROM {TABLE} LIMIT 1", 1, {})

REMOVE = Query("remove", f"DELETE FROM {TABLE} WHERE hash = %(hash)s", 1, {"hash": _MIDDLE})

INCOMING = (
    "SET LOCAL statement_timeout = 0",
    *(f"SET LOCAL {name} TO DEFAULT" for name in _PLANNING),
    """CREATE TEMPORARY TABLE incoming (line bigint, name text COLLATE "C", unicode_name text, next_hop text,
    include_subdomains boolean) ON COMMIT DROP""",
)
"""An import begins; COPY_IN then brings the file's lines."""

COPY_IN = "COPY incoming FROM STDIN"

# A domain that stands twice counts as it stood last, but for its subdomains. In the order of hashes: so the
# table lies on the disk as a fill reads it.
WANTED = (
    """CREATE TEMPORARY TABLE wanted ON COMMIT DROP AS
SELECT DISTINCT ON (hash) hash, name, unicode_name, next_hop,
    bool_or(include_subdomains) OVER (PARTITION BY hash) AS include_subdomains
FROM (SELECT mxweir.hash(name) AS hash, * FROM incoming) hashed
ORDER BY hash, line DESC""",
    "ANALYZE wanted",
    # Two imports, or one and a program that adds: one after the other. Readers go on.
    f"LOCK TABLE {TABLE} IN SHARE ROW EXCLUSIVE MODE",
)

_GONE = f"{TABLE} had WHERE NOT EXISTS (SELECT FROM wanted WHERE wanted.hash = had.hash)"

LOSSES = f"SELECT (SELECT count(*) FROM {TABLE}), (SELECT count(*) FROM {_GONE})"
"""How many domains there are, and how many of them an import would take away."""

MERGE = (
    f"DELETE FROM {_GONE}",
    f"""UPDATE {TABLE} had SET next_hop = wanted.next_hop, include_subdomains = wanted.include_subdomains
FROM wanted WHERE wanted.hash = had.hash
    AND (had.next_hop, had.include_subdomains)
        IS DISTINCT FROM (wanted.next_hop, wanted.include_subdomains)""",
    f"""INSERT INTO {TABLE} (name, unicode_name, next_hop, include_subdomains)
SELECT name, unicode_name, next_hop, include_subdomains FROM wanted
WHERE NOT EXISTS (SELECT FROM {TABLE} had WHERE had.hash = wanted.hash) ORDER BY hash""",
)
"""Makes the table what is wanted; tenants and what is switched off stay as they are."""

TIDY = f"ANALYZE {TABLE}"
"""New figures for the planner; who does not own the table gets a warning, and autovacuum does it later."""
