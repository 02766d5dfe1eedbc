"""Self-signed certificates."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, NamedTuple


class Files(NamedTuple):
    """A certificate and its key."""

    certificate: Path
    key: Path

    @property
    def settings(self) -> dict[str, Any]:
        """As the service's configuration names them."""
        return {"tls_certificate": str(self.certificate), "tls_key": str(self.key)}


def make(folder: Path, name: str = "localhost") -> Files:
    """Make a certificate for a name, in files that may be there already."""
    files = Files(folder / "tls.pem", folder / "tls.key")
    new = [path.with_name(f"{path.name}.new") for path in files]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-days", "9", "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
    command += ["-out", str(new[0]), "-keyout", str(new[1])]
    subprocess.run(command, check=True, capture_output=True)
    for path, target in zip(new, files):
        path.chmod(0o600)
        path.replace(target)
    return files
