"""Certificates for private servers."""

import subprocess
from pathlib import Path
from typing import NamedTuple

from mxweir_ops.lab.process import program


class Certificate(NamedTuple):
    """A certificate that signs itself, so that it is its own authority, and its key; in PEM."""

    cert: Path
    key: Path


def certificate(directory: Path, name: str, *names: str) -> Certificate:
    """Make one for `name`, valid a day, with alternative names such as "DNS:localhost" or "IP:127.0.0.1"."""
    made = Certificate(directory / f"{name}.pem", directory / f"{name}.key")
    argv: list[str | Path] = [
        *(program("openssl", "openssl"), "req", "-x509", "-newkey", "ec"),
        *("-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1", "-subj", f"/CN={name}"),
        *("-addext", f"subjectAltName={','.join(names or (f'DNS:{name}',))}"),
        *("-keyout", made.key, "-out", made.cert),
    ]
    subprocess.run(argv, check=True, capture_output=True, timeout=60)
    return made
