"""Do the daemons answer where they are to listen?

An accepted connection proves nothing, so each is asked something. Who asks is
not Postfix: whether it may use a unix socket is told by the modes on its way.
"""

import grp
import os
import pwd
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from mxweir.endpoint import Endpoint, Unix
from mxweir_ops.checkup.finding import BAD, GOOD, Finding, Host

_SECONDS = 5.0
_LARGEST = 4096

# Nothing is charged for a question of the relay check without a recipient.
_POLICY = b"request=smtpd_access_policy\nprotocol_state=RCPT\npolicy_context=relay\n\n"
# A name that cannot be anybody's (RFC 6761).
_MAPS = b"28:relay-domains doctor.invalid,"
# SMFIC_OPTNEG: version 6, no actions, no steps; a milter answers in kind.
_MILTER = b"\0\0\0\x0dO\0\0\0\x06\0\0\0\0\0\0\0\0"
_PAGES = b"GET /readyz HTTP/1.0\r\n\r\n"


def check(host: Host) -> Iterator[Finding]:
    """Ask each configured socket one harmless question."""
    policyd, milter = host.config.policyd, host.config.milter
    for address in policyd.listen:
        yield _ask("policy daemon", address, _POLICY, lambda answer: answer.startswith(b"action="))
    for address in policyd.maps:
        yield _ask("map server", address, _MAPS, lambda answer: b":NOTFOUND" in answer or b":OK" in answer)
    yield _ask("milter", milter.listen, _MILTER, lambda answer: answer[4:5] == b"O")
    for name, page in (("policy daemon's pages", policyd.http), ("milter's pages", milter.http)):
        if page is not None:
            yield _ask(name, page, _PAGES, lambda answer: b" 200 " in answer[:20])
    for address in (*policyd.listen, *policyd.maps, milter.listen):
        if isinstance(address, Unix) and (what := kept_out("postfix", Path(address.path))):
            yield Finding(BAD, f"Postfix at {address}", f"may not connect: {what}")


def _ask(name: str, address: Endpoint, question: bytes, right: Callable[[bytes], bool]) -> Finding:
    subject = f"{name} at {address}"
    try:
        with closing(_connect(address)) as connection:
            connection.sendall(question)
            answer = connection.recv(_LARGEST)
    except TimeoutError:
        return Finding(BAD, subject, f"no answer within {_SECONDS:g} s")
    except OSError as error:
        return Finding(BAD, subject, f"cannot be asked: {error.strerror or error}; does it run?")
    if not answer:
        return Finding(BAD, subject, "hangs up without an answer; its log says why")
    if not right(answer):
        return Finding(BAD, subject, f"answers {answer[:60]!r}")
    return Finding(GOOD, subject, "answers")


def _connect(address: Endpoint) -> socket.socket:
    if not isinstance(address, Unix):
        return socket.create_connection((address.host, address.port), _SECONDS)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(_SECONDS)
        connection.connect(address.path)
    except BaseException:
        connection.close()
        raise
    return connection


def kept_out(user: str, path: Path) -> str:
    """What keeps a user from a socket: the first place on the way whose mode does not let it; "" for nothing.

    Nothing is said of a user or a path that is not there, nor where an ACL may say otherwise.
    """
    try:
        path.stat()
        who = pwd.getpwnam(user)
        groups = os.getgrouplist(user, who.pw_gid)
        for place in (*reversed(path.parents), path):
            needed = 0o6 if place == path else 0o1
            found = place.stat()
            if found.st_uid == who.pw_uid:
                granted = found.st_mode >> 6
            elif found.st_gid in groups:
                granted = found.st_mode >> 3
            else:
                granted = found.st_mode
            if needed & ~granted and "system.posix_acl_access" not in os.listxattr(place):
                return f"{place} has the mode {stat.S_IMODE(found.st_mode):04o} and the {_owner(found)}"
    except (KeyError, OSError):
        pass
    return ""


def _owner(found: os.stat_result) -> str:
    names = []
    for get, number in ((pwd.getpwuid, found.st_uid), (grp.getgrgid, found.st_gid)):
        try:
            names.append(get(number)[0])
        except KeyError:
            names.append(str(number))
    return "owner {}, group {}".format(*names)
