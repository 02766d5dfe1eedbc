"""Write down what HAProxy knows of its servers, for the process that follows: keep_state.py SOCKET FILE."""

import os
import socket
import sys
from pathlib import Path


def main(admin: str, path: str) -> None:
    """Ask HAProxy at its admin socket, and replace the file at once."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(10)
        client.connect(admin)
        client.sendall(b"show servers state\n")
        state = b"".join(iter(lambda: client.recv(65536), b""))
    aside = Path(f"{path}.new")
    with aside.open("wb") as file:
        file.write(state)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
