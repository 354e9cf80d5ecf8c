"""The running policy daemon, as commands ask it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mxweir.config import Config
from mxweir.service import ServiceError, SettingError
from mxweir_ops.owner import become_owner
from mxweir_policyd import control


def ask_daemon(config: Config, question: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the daemon of this configuration answers; None where there is none.

    As root, becomes the owner of the state directory. Raises ServiceError.
    """
    become_owner(config.state_dir)
    try:
        answer = control.ask(config.state_dir, question)
    except PermissionError:
        raise not_permitted(config.state_dir) from None
    except OSError as error:
        raise ServiceError(f"the policy daemon gives no answer: {error}") from None
    if answer is not None and "error" in answer:
        raise ServiceError(f"the policy daemon says: {answer['error']}")
    return answer


def not_permitted(state_dir: Path) -> ServiceError:
    """Whoever may not ask reads who may."""
    return SettingError(f"{state_dir}: Permission denied; ask as root, or as the daemon's user")
