"""`mxweir domains export --postfix-lmdb DIR`: tables of Postfix's own, as the policy daemon keeps them."""

import argparse
import contextlib
import json
import sys

from mxweir.config import Config
from mxweir.service import ServiceError
from mxweir_ops.owner import become_owner
from mxweir_policyd.postfix.keeping import PostfixMaps
from mxweir_policyd.postfix.postmap import PostfixMapError
from mxweir_policyd.postfix.source import Tables


def export_tables(args: argparse.Namespace, config: Config) -> int:
    """Make both tables what this host knows; status 1 where it does not know enough to make one."""
    become_owner(config.state_dir)
    maps = PostfixMaps(args.postfix_lmdb)
    with contextlib.closing(Tables(config.state_dir, config.postgres is not None)) as tables:
        whole = tables.whole()
        try:
            changed = maps.agree(tables)
            rows = maps.count()
        except PostfixMapError as error:
            raise ServiceError(str(error)) from None
    if args.json:
        print(json.dumps(changed._asdict() | {"rows": rows, "whole": whole}))
    elif whole:
        how = "written anew" if changed.rebuilt else f"{changed.put} put, {changed.removed} taken out"
        print(f"{args.postfix_lmdb}: {how}; {rows} rows in relay-domains")
    if not whole:
        why = "no domain is known, or not all are; nothing was taken out, and no table is made"
        print(f"mxweir domains export: {why}", file=sys.stderr)
    return 0 if whole else 1
