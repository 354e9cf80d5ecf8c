"""What the daemons of mxweir share: configuration, addresses, rate limits, time, log, metrics, sockets."""

__version__ = "0.1.0"
