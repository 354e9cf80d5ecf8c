"""The running daemons, as commands ask them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mxweir import control
from mxweir.config import Config
from mxweir.service import ServiceError, SettingError
from mxweir_ops.owner import become_owner

NAMES = {"policyd": "policy daemon", "milter": "milter"}
"""The daemons, as people call them."""


def ask_daemon(config: Config, question: Mapping[str, Any], daemon: str = "policyd") -> dict[str, Any] | None:
    """What a daemon of this configuration answers; None where there is none.

    As root, becomes the owner of the state directory. Raises ServiceError.
    """
    become_owner(config.state_dir)
    try:
        answer = control.ask(config.state_dir, daemon, question)
    except PermissionError:
        raise not_permitted(config.state_dir) from None
    except OSError as error:
        raise ServiceError(f"the {NAMES[daemon]} gives no answer: {error}") from None
    if answer is not None and "error" in answer:
        raise ServiceError(f"the {NAMES[daemon]} says: {answer['error']}")
    return answer


def not_permitted(state_dir: Path) -> ServiceError:
    """Whoever may not ask reads who may."""
    return SettingError(f"{state_dir}: Permission denied; ask as root, or as the daemon's user")
