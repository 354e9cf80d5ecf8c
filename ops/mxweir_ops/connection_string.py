"""Is a text a connection string as libpq takes it? Told before anybody connects."""

import argparse


def fault(dsn: str) -> str:
    """Why libpq would not take it; "" where it does, or where psycopg is not here to ask."""
    try:
        from psycopg import ProgrammingError, conninfo  # noqa: PLC0415 - an extra, and slow to load
    except ModuleNotFoundError:
        return ""
    try:
        conninfo.conninfo_to_dict(dsn)
    except ProgrammingError:
        return "no connection string as libpq takes it"  # its own words may quote the password
    return ""


def argument(dsn: str) -> str:
    """The value of an option; ArgumentTypeError where libpq would not take it."""
    if why := fault(dsn):
        raise argparse.ArgumentTypeError(why)
    return dsn
