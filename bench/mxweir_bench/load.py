"""One run of the load generator, and what else happened on the machine meanwhile."""

import json
import subprocess
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from mxweir_bench import usage
from mxweir_bench.servers import Server, on_cores


class InvalidRunError(Exception):
    """A run that measured something else than what it is meant to; the text says what."""


@dataclass(frozen=True, slots=True)
class Run:
    """Figures of one run: requests a second, milliseconds, and shares of one core."""

    requests: int
    rps: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    server_cpu: float
    generator_cpu: float
    others_cpu: float


def requests(policyload: Path, count: int, keys: int) -> list[bytes]:
    """Requests as the load generator sends them, drawn from that many senders, recipients and clients."""
    argv = [str(policyload), "--print", "--requests", str(count), "--keys", str(keys)]
    out = subprocess.run(argv, capture_output=True, check=True).stdout
    return [text + b"\n\n" for text in out.split(b"\n\n")[:-1]]


def run(
    policyload: Path, server: Server, options: Sequence[str], answers: Collection[str] = ("DUNNO",)
) -> Run:
    """Load the server; InvalidRunError when a reply is missing, malformed or begins otherwise than `answers`.

    `options` are the load generator's: connections, seconds or requests, keys.
    """
    machine, served = usage.machine_cpu_seconds(), usage.cpu_seconds(server.pids())
    argv = [*on_cores(server.cores), policyload, "--connect", server.address, *options]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    machine, served = usage.machine_cpu_seconds() - machine, usage.cpu_seconds(server.pids()) - served
    if not done.stdout:
        raise InvalidRunError(f"{server.name}: {done.stderr.strip()}")
    out = json.loads(done.stdout)
    if done.returncode or not set(out["actions"]) <= set(answers):
        raise InvalidRunError(
            f"{server.name}: not every request was answered as it should: {done.stdout.strip()}"
        )
    seconds, generator = out["seconds"], out["client_cpu_s"]
    return Run(
        requests=out["requests"],
        rps=out["rps"],
        p50_ms=out["us"]["p50"] / 1000,
        p99_ms=out["us"]["p99"] / 1000,
        p999_ms=out["us"]["p99.9"] / 1000,
        max_ms=out["us"]["max"] / 1000,
        server_cpu=served / seconds,
        generator_cpu=generator / seconds,
        others_cpu=max(0.0, (machine - served - generator) / seconds),
    )
