"""Several private Redis: a master that sentinels watch, and a Cluster."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from mxweir.endpoint import Inet
from mxweir_ops.lab.place import free_port
from mxweir_ops.lab.process import LabError, Server, wait_until
from mxweir_ops.lab.redis import PASSWORD, Redis

MASTER = "lab"
"""What the sentinels call the master."""

_READY_SECONDS = 60.0
_THIRD = 5461
"""Slots of each master of a Cluster."""


def port_of(server: Redis) -> int:
    """At which port others are to ask it: the one for TLS, where it has one."""
    return int(server.settings.get("tls-port", server.inet.port))


class Replica(Redis):
    """A Redis that follows another, read-only, from its start on."""

    def __init__(
        self,
        directory: Path,
        master: Redis,
        settings: Mapping[str, str] | None = None,
        name: str = "replica",
    ):
        follow = {"replicaof": f"{master.inet.host} {port_of(master)}"}
        super().__init__(directory, follow | dict(settings or {}), name, valkey=master.valkey)

    def follows(self) -> bool:
        """Whether it has what its master has."""
        return self.info("replication").get("master_link_status") == "up"


class Sentinel(Redis):
    """Watches a master; `quorum` of them replace it once it has been dead for a second."""

    options = ("--sentinel",)
    users = "sentinel.acl"

    def __init__(
        self,
        directory: Path,
        master: Redis,
        quorum: int,
        name: str,
        settings: Mapping[str, str] | None = None,
    ):
        self._monitor = f"{MASTER} {master.inet.host} {port_of(master)} {quorum}"
        super().__init__(directory, settings, name, valkey=master.valkey)

    def knows(self, replicas: int, sentinels: int) -> bool:
        """Whether it has found that many replicas, and that many others of its kind."""
        told = self.cli("SENTINEL", "MASTER", MASTER)
        found = dict(zip(told[::2], told[1::2], strict=True))
        counts = int(found[b"num-slaves"]), int(found[b"num-other-sentinels"])
        return counts == (replicas, sentinels) and found[b"flags"] == b"master"

    def chosen(self) -> Inet:
        """Where it says that the master is."""
        host, port = self.cli("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)
        return Inet(host.decode(), int(port))

    def configure(self) -> None:
        """Write what the next start is to have."""
        lines = {
            "dir": self.directory,
            "bind": self.inet.host,
            "port": self.inet.port,
            "unixsocket": self.unix.path,
            "unixsocketperm": 777,
            "aclfile": self.write_users(),
            "sentinel monitor": self._monitor,
            f"sentinel down-after-milliseconds {MASTER}": 1000,
            f"sentinel failover-timeout {MASTER}": 5000,
        }
        self.write(lines | self.settings)


class Watched(Server):
    """A master, a replica of it, and three sentinels that watch both.

    `settings` are for the first two; `more` has lines for each of the five, in this
    order. With a tls-port and tls-replication among them, they talk to each other over TLS.
    """

    def __init__(
        self,
        directory: Path,
        settings: Mapping[str, str] | None = None,
        more: Sequence[Mapping[str, str]] = ({}, {}, {}, {}, {}),
        *,
        valkey: bool = False,
    ):
        master, replica, *sentinels = map(dict, more)
        self.master = Redis(directory, dict(settings or {}) | master, "master", valkey=valkey)
        self.replica = Replica(directory, self.master, dict(settings or {}) | replica)
        self.sentinels = [
            Sentinel(directory, self.master, 2, f"sentinel{n}", lines) for n, lines in enumerate(sentinels)
        ]

    @property
    def url(self) -> str:
        """As `redis.url` takes it."""
        return f"redis+sentinel://{','.join(f'{s.inet.host}:{s.inet.port}' for s in self.sentinels)}/{MASTER}"

    @property
    def guarded_url(self) -> str:
        """The same for the user `mxweir`, with its password, there and at the sentinels."""
        login = f"mxweir:{quote(PASSWORD)}@"
        return (
            f"{self.url.replace('//', f'//{login}')}?sentinel_user=mxweir&sentinel_password={quote(PASSWORD)}"
        )

    def start(self) -> None:
        """Start all and wait until they have found each other."""
        for server in (self.master, self.replica, *self.sentinels):
            server.start()
        if not wait_until(lambda: all(s.knows(1, 2) for s in self.sentinels), _READY_SECONDS):
            raise LabError("the sentinels do not find each other")

    def stop(self) -> None:
        """Stop all."""
        for server in (*self.sentinels, self.replica, self.master):
            server.stop()


class Cluster(Server):
    """Three masters with a third of the slots each; the first of them has a replica, if one is wanted.

    `more` has lines of redis.conf for each node; with a tls-port among them, they talk
    to each other over TLS too, for only then is a client over TLS told that port.
    """

    def __init__(
        self,
        directory: Path,
        replica: bool = False,
        more: Sequence[Mapping[str, str]] = ({}, {}, {}, {}),
        *,
        valkey: bool = False,
    ):
        self._ports = [free_port() for _ in range(4 if replica else 3)]
        lines = [self._lines(port) | dict(each) for port, each in zip(self._ports, more, strict=False)]
        self.nodes = [Redis(directory, each, f"node{n}", valkey=valkey) for n, each in enumerate(lines)]
        self.masters = self.nodes[:3]

    @property
    def url(self) -> str:
        """As `redis.url` takes it."""
        return f"redis+cluster://{','.join(f'{n.inet.host}:{n.inet.port}' for n in self.masters)}"

    @property
    def guarded_url(self) -> str:
        """The same for the user `mxweir`, with its password."""
        return self.url.replace("//", f"//mxweir:{quote(PASSWORD)}@")

    def start(self) -> None:
        """Start all and wait until they agree that all is well."""
        for number, node in enumerate(self.nodes):
            node.directory.mkdir(parents=True, exist_ok=True)
            (node.directory / "nodes.conf").write_text(self._nodes(number))
            node.start()
        if not wait_until(lambda: all(self.well(node) for node in self.nodes), _READY_SECONDS):
            raise LabError("the nodes of the Cluster do not agree")

    def stop(self) -> None:
        """Stop all."""
        for node in self.nodes:
            node.stop()

    def well(self, node: Redis) -> bool:
        """Whether a node sees all others, and all slots served."""
        told = node.cli("CLUSTER", "INFO").decode()
        links = node.cli("CLUSTER", "NODES").decode()
        return "cluster_state:ok" in told and "disconnected" not in links

    def identity(self, number: int) -> str:
        """The id that a node has."""
        return f"{number + 1:040x}"

    def owner(self, slot: int) -> Redis:
        """The node that has a slot from the start."""
        return self.masters[min(slot // _THIRD, 2)]

    def move(self, slot: int, target: Redis, while_moving: Callable[[], None] = lambda: None) -> None:
        """Move a slot with its keys from its first owner, as `redis-cli --cluster reshard` does.

        `while_moving` is called before its keys are moved, and after.
        """
        source = self.owner(slot)
        ids = {node: self.identity(number) for number, node in enumerate(self.nodes)}
        target.cli("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
        source.cli("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
        while_moving()
        while keys := source.cli("CLUSTER", "GETKEYSINSLOT", slot, 10):
            source.cli("MIGRATE", target.inet.host, target.inet.port, "", 0, 5000, "KEYS", *keys)
        while_moving()
        for node in (target, source, *self.masters):
            node.cli("CLUSTER", "SETSLOT", slot, "NODE", ids[target])

    @staticmethod
    def _lines(port: int) -> dict[str, str]:
        return {
            "cluster-enabled": "yes",
            "cluster-config-file": "nodes.conf",
            "cluster-port": str(port),
            "cluster-node-timeout": "2000",
            "cluster-require-full-coverage": "no",
            "cluster-replica-validity-factor": "0",
        }

    def _nodes(self, me: int) -> str:
        """What a node would have written about all of them: so none has to be introduced."""
        text = ""
        for number, node in enumerate(self.nodes):
            at = f"{node.inet.host}:{port_of(node)}@{self._ports[number]}"
            mine = "myself," if number == me else ""
            first, last = number * _THIRD, 16383 if number == 2 else (number + 1) * _THIRD - 1
            what = f"{mine}master - 0 0 {number + 1} connected {first}-{last}"
            if number == 3:
                what = f"{mine}slave {self.identity(0)} 0 0 1 connected"
            text += f"{self.identity(number)} {at} {what}\n"
        return f"{text}vars currentEpoch 3 lastVoteEpoch 0\n"
