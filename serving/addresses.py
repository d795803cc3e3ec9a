"""Network addresses of Triton servers: free ports on the loopback interface, and the machines behind a name."""

from __future__ import annotations

import socket
from contextlib import ExitStack

from multitron_core.errors import InputError, UnavailableError

LOOPBACK = "127.0.0.1"
"""The only address on which an embedded server listens."""


def resolve(url: str) -> list[str]:
    """The address of every machine behind an address.

    Args:
        url: `host:port`.

    Returns:
        `host:port` per machine, by IPv4 address in ascending order, where the name has several IPv4 addresses;
        otherwise `url` alone.

    Raises:
        InputError: `url` is not of the form `host:port`.
        UnavailableError: the name cannot be resolved now.
    """
    host, _, port = url.rpartition(":")
    if not host or not port.isdecimal():
        raise InputError(
            "not the address of a server",
            where="urls",
            found=url,
            hint="give host:port, for example triton:8001 (the gRPC port)",
        )
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except OSError as error:
        raise UnavailableError(
            "the name of the Triton server cannot be resolved", where=url, found=str(error)
        ) from error
    # Many machines, localhost among them, have an IPv4 and an IPv6 address: only IPv4 addresses count.
    hosts = sorted({str(address[0]) for family, _, _, _, address in found if family == socket.AF_INET})
    return [f"{address}:{port}" for address in hosts] if len(hosts) > 1 else [url]


def free_ports(ports: dict[str, int]) -> dict[str, int]:
    """Replace each 0 by a free port of the loopback interface; the chosen ports differ.

    Args:
        ports: port by name, 0 for a free one.
    """
    with ExitStack() as bound:  # keeps each port until the last one is chosen
        return {name: port or bound.enter_context(_bind(0)).getsockname()[1] for name, port in ports.items()}


def is_free(port: int) -> bool:
    """Whether a server can bind a port (1 to 65535) of the loopback interface."""
    try:
        _bind(port).close()
    except OSError:
        return False
    return True


def _bind(port: int) -> socket.socket:
    bound = socket.socket()
    try:
        # Triton sets this option too, to bind a port on which closed connections linger. For port 0 it stays off,
        # because with it the system may choose the same free port twice.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(port != 0))
        bound.bind((LOOPBACK, port))
    except BaseException:
        bound.close()
        raise
    return bound
