"""The client for a topology."""

from mxweir.clock import Clock
from mxweir.config.sections import Redis
from mxweir.events import Observer
from mxweir.redis.client import Client, single
from mxweir.redis.cluster import Cluster
from mxweir.redis.dial import Manners, tls_of
from mxweir.redis.sentinel import Sentinels, Watched
from mxweir.redis.url import Topology


def client_of(settings: Redis, observe: Observer, clock: Clock) -> Client:
    """The client that the settings ask for. Raises SettingError in one line."""
    url, tls = settings.url, tls_of(settings)
    manners = Manners(str(url), url.login, url.database, tls, observe, clock)
    match url.topology:
        case Topology.SINGLE:
            return single(manners, url.addresses[0])
        case Topology.SENTINEL:
            watching = Manners(str(url), url.sentinel_login, 0, tls, observe, clock)
            return Watched(manners, watching, Sentinels(watching, url.addresses, url.master))
        case Topology.CLUSTER:
            return Cluster(manners, url.addresses)
