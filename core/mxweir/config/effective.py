"""The configuration as an operator would write it with every key, defaults included."""

import json
import tomllib
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from mxweir.config.schema import MASK, REQUIRED, declared
from mxweir.config.sections import Config, by_content


def effective(text: str) -> dict[str, Any]:
    """Every key of a valid configuration with its value in force; secrets masked, absent keys left out."""
    return _fill(Config, tomllib.loads(text))


def to_toml(document: Mapping[str, Any]) -> str:
    """Write it as TOML."""
    return "\n".join(_table(document, "")) + "\n"


def _fill(kind: type[Any], document: Mapping[str, Any]) -> dict[str, Any]:
    filled: dict[str, Any] = {}
    for key, field in declared(kind).items():
        if table := field.metadata.get("table"):
            if key in document or field.default is not None:
                filled[key] = _fill(table, document.get(key, {}))
        elif tables := field.metadata.get("tables"):
            filled[key] = [_fill(tables, row) for row in document.get(key, [])]
        else:
            written = field.metadata["written"]
            value = document.get(key, None if written is REQUIRED else written)
            if value is not None:
                filled[key] = MASK if field.metadata["secret"] else value
    return filled


def _table(document: Mapping[str, Any], name: str) -> Iterator[str]:
    nested = {key: value for key, value in document.items() if isinstance(value, dict) and key != "overrides"}
    arrays = {key: value for key, value in document.items() if _is_array_of_tables(value)}
    for key, value in document.items():
        if key not in nested and key not in arrays:
            yield f"{key} = {_value(value)}"
    for key, value in nested.items():
        yield f"\n[{name}{key}]"
        yield from _table(value, f"{name}{key}.")
    for key, rows in arrays.items():
        for row in rows:
            yield f"\n[[{name}{key}]]"
            if key == "limit":
                yield f"# asked by the {'milter' if _by_content(row) else 'policy daemon'}"
            yield from _table(row, f"{name}{key}.")


def _by_content(limit: Mapping[str, Any]) -> bool:
    keys = [limit["key"]] if isinstance(limit["key"], str) else limit["key"]
    return by_content(*keys, limit["distinct"])


def _is_array_of_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _value(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_value(item)}" for key, item in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)
