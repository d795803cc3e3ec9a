"""Where NVIDIA's Triton binary is, and the backend directory that it needs here."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from multitron_core.errors import InputError

_ELSEWHERE = (
    "start a Triton server elsewhere and give its gRPC address (urls=; for the nightly job "
    "MULTITRON_TRITON_URL=host:port), or score with the in-process scorer (MULTITRON_SCORER=in_process)"
)


def find_triton_home(given: Path | str | None = None) -> Path:
    """The folder with `bin/tritonserver`, as `TritonServer` describes.

    Raises:
        InputError: it is not there; the message says what to do without it.
    """
    named = given or os.environ.get("MULTITRON_TRITON_HOME")
    places = [Path(named)] if named else [Path(__file__).parents[1] / ".triton", Path.cwd() / ".triton"]
    for place in places:
        home = place.absolute() / "pytriton" / "tritonserver"
        if (home / "bin" / "tritonserver").is_file():
            return home
    raise InputError(
        "this machine has no Triton binary",
        where=" or ".join(str(place) for place in places),
        hint="install it (pip install --no-deps --target .triton nvidia-pytriton) and name the folder in "
        f"MULTITRON_TRITON_HOME; or {_ELSEWHERE}",
    )


def assemble_backend(home: Path, run_dir: Path) -> Path:
    """A backend directory in which the stub of this Python stands beside the backend, made of links."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = home / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.is_file():
        have = sorted(path.name for path in (home / "python_backend_stubs").iterdir())
        raise InputError(
            "the Triton binary has no stub for this Python",
            where=stub.parent.parent,
            found=version,
            hint=f"use a Python of {', '.join(have)}; or {_ELSEWHERE}",
        )
    backend = run_dir / "backends" / "python"
    backend.mkdir(parents=True)
    for file in (
        home / "backends" / "python" / "libtriton_python.so",
        home / "backends" / "python" / "triton_python_backend_utils.py",
        stub,
    ):
        (backend / file.name).symlink_to(file)
    return backend.parent
