"""Ask whether the gateway of this machine answers: answers.py URL. The exit status is 0 if it does, else 1."""

import socket
import sys
import urllib.parse

#: Seconds for the connection, and for the answer.
PATIENCE = 5


def main(url: str) -> int:
    """Return the exit status."""
    place = urllib.parse.urlsplit(url)
    try:
        with socket.create_connection((place.hostname, place.port), PATIENCE) as plain:
            client = _over_tls(plain) if place.scheme == "https" else plain
            client.sendall(f"GET {place.path} HTTP/1.0\r\n\r\n".encode())
            status = client.makefile("rb").readline().split()
    except OSError:
        return 1
    return int(status[1:2] != [b"200"])


def _over_tls(client: socket.socket) -> socket.socket:
    # It is asked every second: plain HTTP does not wait for this module.
    import ssl  # noqa: PLC0415

    # The certificate may be self-signed, and this is the gateway's own machine.
    trusting = ssl.create_default_context()
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    return trusting.wrap_socket(client)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
