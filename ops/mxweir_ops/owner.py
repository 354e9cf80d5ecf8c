"""Root's commands work in the state directory as its owner.

Who owns it can put links there, and what root opens by a name in it could be
any file of the host.
"""

import os
import pwd
from contextlib import suppress
from importlib import import_module
from pathlib import Path


def become_owner(directory: Path) -> None:
    """As root, become the owner of a directory; where it is missing, of the nearest one above it.

    Anybody else stays who they are. What only root can read must be read before.
    """
    if os.geteuid() != 0:
        return
    there = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    owner = there.stat()
    if owner.st_uid == 0:
        return
    with suppress(ImportError):
        # lmdb imports it late, when it may lie where only root may go.
        import_module("lmdb._envid")
    os.setgroups(_groups(owner.st_uid, owner.st_gid))
    # The real ids too: postmap goes by no main.cf of ours for one who really is another user.
    os.setresgid(owner.st_gid, owner.st_gid, owner.st_gid)
    os.setresuid(owner.st_uid, owner.st_uid, owner.st_uid)


def _groups(user: int, group: int) -> list[int]:
    """The groups that the user is in; those of root are not kept."""
    try:
        return os.getgrouplist(pwd.getpwuid(user).pw_name, group)
    except KeyError:
        return [group]
