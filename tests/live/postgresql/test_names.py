"""The table takes just the names that our rule takes, when they are in its form already."""

import psycopg
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mxweir.domains.names import valid_domain

PIECES = st.lists(
    st.sampled_from(["a", "b1", "-", "_", ".", "7", "x" * 30, "\\", " ", "é", "A"]), max_size=12
)


@hypothesis_settings(
    max_examples=300, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(PIECES.map("".join))
def test_what_the_rule_leaves_as_it_is_goes_in_and_nothing_else(connection, name):
    try:
        wanted = valid_domain(name) if name.isascii() else None
    except ValueError:
        wanted = None
    assert taken(connection, name) == wanted


def taken(connection: psycopg.Connection, name: str) -> str | None:
    """What the table makes of a name; None if it refuses it."""
    try:
        with connection.transaction(force_rollback=True):
            found = connection.execute("INSERT INTO mxweir.domains (name) VALUES (%s) RETURNING name", [name])
            return str(found.fetchall()[0][0])
    except psycopg.errors.CheckViolation:
        return None
