"""Free ports, and the addresses behind a name."""

from __future__ import annotations

import socket

import pytest

from multitron_core.errors import InputError, UnavailableError
from serving.addresses import LOOPBACK, free_ports, is_free, resolve


def test_free_ports_differ_and_keep_given_ones() -> None:
    ports = free_ports({"grpc": 0, "http": 8000, "metrics": 0})
    assert ports["http"] == 8000
    assert len({0, *ports.values()}) == 4


def test_is_free_is_false_for_a_port_in_use() -> None:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert not is_free(port)
    assert is_free(port)


def test_resolve_returns_each_ipv4_address_of_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, None, None, None, (host, 8001)) for host in ("10.0.0.2", "10.0.0.1", "10.0.0.2")]
    found.append((socket.AF_INET6, None, None, None, ("fd00::1", 8001)))
    # No name with several addresses exists on every test machine.
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert resolve("multitron-triton:8001") == ["10.0.0.1:8001", "10.0.0.2:8001"]


def test_resolve_keeps_a_name_of_one_machine() -> None:
    assert resolve("localhost:8001") == ["localhost:8001"]


def test_resolve_refuses_what_is_no_address() -> None:
    with pytest.raises(InputError, match="host:port"):
        resolve("http://triton")
    with pytest.raises(UnavailableError, match="cannot be resolved"):
        resolve("no-such-machine.invalid:8001")
