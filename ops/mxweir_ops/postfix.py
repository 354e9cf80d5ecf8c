"""The lines of main.cf and master.cf that go with a configuration. Pure.

Why they are as they are, each found by experiment:

- `try_limit=2`: with 1, an smtpd process keeps a dead connection and lets
  everything pass for as long as it lives.
- `default_action=DUNNO`: with the policy daemon gone, Postfix's own restrictions
  decide, and `defer_unauth_destination` keeps the relay closed.
- the timeouts lie above our deadlines: past Postfix's, an answer is lost.
- `relay_domains` by tables of Postfix's own: they answer when every process of
  ours is dead. By socketmap, all mail then gets 451.
- `parent_domain_matches_subdomains` without relay_domains: with it, a domain in the
  table would stand for all below, and a subdomain that is not ours pass while the
  policy daemon is away. `.NAME` in the table says where subdomains are ours.
- `default_action=accept` for the milter: a scanner must not stop mail. So every gap,
  such as a milter that is down, is an accept, and Postfix logs a warning for each.
- the milter's `command_timeout`: a connection that is made while the milter restarts
  waits in systemd's socket until the old instance has drained and the new one serves.
"""

import math
from collections.abc import Iterator

from mxweir.config import Config
from mxweir.endpoint import Endpoint, Unix
from mxweir_policyd.postfix.rows import RELAY, TRANSPORT

QUEUE_DIRECTORY = "/var/spool/postfix"

_PARENTS_MATCH = (
    "debug_peer_list",
    "fast_flush_domains",
    "mynetworks",
    "permit_mx_backup_networks",
    "qmqpd_authorized_clients",
    "smtpd_access_maps",
)
"""Postfix's default (3.1 to 3.10), less relay_domains."""

MILTER_MAIL_MACROS = (
    "i {mail_addr} {client_addr} {client_name} {auth_type} {auth_authen} {tls_version} {cipher}"
)


def main_cf(config: Config, queue_directory: str = QUEUE_DIRECTORY) -> list[str]:
    """Lines for main.cf."""
    relay = _policy(config, "relay", queue_directory)
    lines = [
        *_tables(config, queue_directory),
        "",
        "# Never without defer_unauth_destination: it keeps the relay closed when mxweir is stopped.",
        "smtpd_relay_restrictions = permit_mynetworks, permit_sasl_authenticated,",
        f"    {relay},",
        "    defer_unauth_destination",
        "smtpd_recipient_restrictions =",
        f"    {_policy(config, 'limits', queue_directory)}",
    ]
    if any(limit.unit != "recipient" and not limit.by_content for limit in config.limit):
        lines += ["smtpd_end_of_data_restrictions =", f"    {_policy(config, 'message', queue_directory)}"]
    return [*lines, "", *_milter(config, queue_directory)]


def master_cf() -> list[str]:
    """Lines for master.cf: none for port 25; submission services, where there are any, are spared."""
    return [
        "# smtp needs no change. Where this host also runs submission for its users, below that service:",
        "#    -o smtpd_relay_restrictions=permit_sasl_authenticated,reject",
        "#    -o smtpd_recipient_restrictions=",
        "#    -o smtpd_end_of_data_restrictions=",
        "#    -o smtpd_milters=",
    ]


def as_postfix_writes(endpoint: Endpoint, queue_directory: str = QUEUE_DIRECTORY) -> str:
    """An address for main.cf; a socket in the queue directory is named from there, as in smtpd's chroot."""
    if isinstance(endpoint, Unix) and endpoint.path.startswith(f"{queue_directory}/"):
        return f"unix:{endpoint.path.removeprefix(queue_directory).lstrip('/')}"
    return str(endpoint)


def _tables(config: Config, queue_directory: str) -> Iterator[str]:
    """Where Postfix looks up which domains it relays for, and where their mail goes."""
    if (directory := config.domains.postfix_lmdb) is not None:
        yield "# The domains that this host takes mail for: mxweir keeps these tables current, and Postfix"
        yield "# needs nobody to read them."
        yield f"relay_domains = lmdb:{directory}/{RELAY}"
        yield f"transport_maps = lmdb:{directory}/{TRANSPORT}"
        yield f"parent_domain_matches_subdomains = {', '.join(_PARENTS_MATCH)}"
    elif config.policyd.maps:
        address = as_postfix_writes(config.policyd.maps[0], queue_directory)
        yield "# The domains that this host takes mail for, asked of mxweir. Danger: while it is stopped, all"
        yield "# mail gets 451. With domains.postfix_lmdb, Postfix has tables of its own."
        yield f"relay_domains = socketmap:{address}:{RELAY}"
        yield f"transport_maps = socketmap:{address}:{TRANSPORT}"
    else:
        yield "# relay_domains stays as you have it: with policyd.maps empty and no domains.postfix_lmdb,"
        yield "# Postfix learns no domains from mxweir."


def _policy(config: Config, context: str, queue_directory: str) -> str:
    address = as_postfix_writes(config.policyd.listen[0], queue_directory)
    timeout = math.ceil(config.policyd.deadline) + 1
    settings = f"policy_context={context}, timeout={timeout}s, try_limit=2, default_action=DUNNO"
    return f"check_policy_service {{ {address}, {settings} }}"


def _milter(config: Config, queue_directory: str) -> Iterator[str]:
    address = as_postfix_writes(config.milter.listen, queue_directory)
    command = math.ceil(config.milter.drain) + 5
    content = math.ceil(config.milter.deadline) + 5
    timeouts = f"connect_timeout=3s, command_timeout={command}s, content_timeout={content}s"
    yield f"smtpd_milters = {{ {address}, {timeouts}, default_action=accept }}"
    yield f"milter_mail_macros = {MILTER_MAIL_MACROS}"
