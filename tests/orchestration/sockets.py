"""Which addresses processes listen on, from the tables of the kernel."""

from __future__ import annotations

import os
from pathlib import Path

LOOPBACK = frozenset({"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"})
"""127.0.0.1, ::1, and 127.0.0.1 as an IPv6 address, as the kernel writes them."""


def descendants(process_id: int) -> set[int]:
    """A process and all its children, their children included."""
    found, open_ids = set(), [process_id]
    while open_ids:
        each = open_ids.pop()
        found.add(each)
        for task in Path(f"/proc/{each}/task").glob("*/children"):
            open_ids += [int(child) for child in task.read_text().split()]
    return found


def listening(process_ids: set[int]) -> set[str]:
    """The addresses that processes listen on, hexadecimal, as the kernel writes them."""
    sockets = set()
    for process_id in process_ids:
        for link in Path(f"/proc/{process_id}/fd").iterdir():
            try:
                target = os.readlink(link)
            except OSError:  # closed in the meantime
                continue
            if target.startswith("socket:["):
                sockets.add(target[8:-1])
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in sockets:
                found.add(fields[1].rpartition(":")[0])
    return found
