"""A shared library in 500 bytes: a valid ELF file with a name and one function, for packages that ship libraries."""

from __future__ import annotations

import struct

_BASE = 0x0
_PAGE = 0x1000


def shared_library(soname: str, symbol: str = "xpu_fleet_fixture") -> bytes:
    """Return an x86-64 shared library of that SONAME whose one function returns 0.

    The dynamic loader can load it and find the function; it depends on nothing.
    """
    names = b"\0" + soname.encode() + b"\0" + symbol.encode() + b"\0"
    code = b"\x31\xc0\xc3"  # xor eax, eax; ret
    header_size, program_size, programs = 64, 56, 3
    offset = header_size + programs * program_size
    hash_at = offset
    hashes = struct.pack("<IIIII", 1, 2, 1, 0, 0)  # one bucket: symbol 1; two chains
    symbols_at = _align(hash_at + len(hashes), 8)
    code_at = symbols_at + 2 * 24
    names_at = code_at + len(code)
    dynamic_at = _align(names_at + len(names), 8)
    dynamic = b"".join(
        struct.pack("<qQ", tag, value)
        for tag, value in (
            (14, 1),  # DT_SONAME
            (4, hash_at),  # DT_HASH
            (5, names_at),  # DT_STRTAB
            (6, symbols_at),  # DT_SYMTAB
            (10, len(names)),  # DT_STRSZ
            (11, 24),  # DT_SYMENT
            (0, 0),
        )
    )
    end = dynamic_at + len(dynamic)
    function = struct.pack("<IBBHQQ", 2 + len(soname), 0x12, 0, 1, code_at, len(code))
    body = bytearray(end)
    body[hash_at : hash_at + len(hashes)] = hashes
    body[symbols_at : symbols_at + 48] = bytes(24) + function
    body[code_at : code_at + len(code)] = code
    body[names_at : names_at + len(names)] = names
    body[dynamic_at:end] = dynamic
    identity = b"\x7fELF" + bytes([2, 1, 1, 0]) + bytes(8)
    body[:64] = identity + struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, code_at, 64, 0, 0, 64, 56, programs, 64, 0, 0)
    segments = (
        # type, flags, offset, address, address, size in file, size in memory, alignment. The loader writes into the
        # dynamic section, hence one writable segment.
        (1, 7, 0, _BASE, _BASE, end, end, _PAGE),
        (2, 6, dynamic_at, dynamic_at, dynamic_at, len(dynamic), len(dynamic), 8),
        (0x6474E551, 6, 0, 0, 0, 0, 0, 16),  # PT_GNU_STACK: not executable
    )
    for index, segment in enumerate(segments):
        start = header_size + index * program_size
        body[start : start + program_size] = struct.pack("<IIQQQQQQ", *segment)
    return bytes(body)


def _align(number: int, to: int) -> int:
    return -(-number // to) * to
