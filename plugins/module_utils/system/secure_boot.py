"""Whether Secure Boot keeps the kernel from loading modules built by DKMS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_EFIVARS = "sys/firmware/efi/efivars"
_GLOBAL = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
_SHIM = "605dab50-e046-4300-abb6-3dd810dd8b23"
#: DKMS's signing certificates, as DER: Ubuntu's, and DKMS's own.
SIGNING_CERTIFICATES = ("var/lib/shim-signed/mok/MOK.der", "var/lib/dkms/mok.pub")


def secure_boot(root: Path = Path("/")) -> bool:
    """Tell whether Secure Boot refuses DKMS's modules.

    It does if UEFI enables it, unless shim's validation is off (``mokutil --disable-validation``), which the kernel
    treats as no Secure Boot, or DKMS's signing key is enrolled (``mokutil --import``).
    """
    if _value(root, f"SecureBoot-{_GLOBAL}") != b"\x01" or _value(root, f"MokSBStateRT-{_SHIM}") == b"\x01":
        return False
    return not any(certificate in keys for certificate in _certificates(root) for keys in _enrolled(root))


def _value(root: Path, name: str) -> bytes:
    """Return an EFI variable without the four bytes of attributes before it, b"" if it does not exist."""
    try:
        return (root / _EFIVARS / name).read_bytes()[4:]
    except OSError:
        return b""


def _certificates(root: Path) -> Iterator[bytes]:
    for path in SIGNING_CERTIFICATES:
        try:
            certificate = (root / path).read_bytes()
        except OSError:
            continue
        if certificate:
            yield certificate


def _enrolled(root: Path) -> Iterator[bytes]:
    """Yield shim's lists of keys: a long one continues in numbered variables, and the kernel shows it whole."""
    for path in sorted((root / _EFIVARS).glob(f"MokListRT*-{_SHIM}")):
        yield _value(root, path.name)
    try:
        yield (root / "sys/firmware/efi/mok-variables/MokListRT").read_bytes()
    except OSError:
        return
