"""The location of NVIDIA's Triton binary, and the backend directory that it needs for this Python."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from multitron_core.errors import InputError

_ALTERNATIVES = (
    "use a remote Triton server by its gRPC address (urls=; for the nightly job MULTITRON_TRITON_URL=host:port), or "
    "score with the in-process scorer (MULTITRON_SCORER=in_process)"
)


def find_triton_home(given: Path | str | None = None) -> Path:
    """Find the folder that contains `bin/tritonserver`.

    Args:
        given: folder into which the wheel `nvidia-pytriton` was installed; None uses the environment variable
            MULTITRON_TRITON_HOME, else `.triton` of the checkout or of the current folder.

    Raises:
        InputError: the binary is missing; the hint lists the alternatives.
    """
    configured = given or os.environ.get("MULTITRON_TRITON_HOME")
    folders = [Path(configured)] if configured else [Path(__file__).parents[1] / ".triton", Path.cwd() / ".triton"]
    for folder in folders:
        home = folder.absolute() / "pytriton" / "tritonserver"
        if (home / "bin" / "tritonserver").is_file():
            return home
    raise InputError(
        "this machine has no Triton binary",
        where=" or ".join(str(folder) for folder in folders),
        hint="install it (pip install --no-deps --target .triton nvidia-pytriton) and set MULTITRON_TRITON_HOME to the "
        f"folder; or {_ALTERNATIVES}",
    )


def assemble_backend(home: Path, run_dir: Path) -> Path:
    """Create a backend directory of links, with the stub for this Python next to the python backend.

    Args:
        home: folder of the Triton binary, from `find_triton_home`.
        run_dir: existing folder in which the directory is created.

    Returns:
        The backend directory.

    Raises:
        InputError: the binary has no stub for this Python version.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = home / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.is_file():
        versions = sorted(path.name for path in (home / "python_backend_stubs").iterdir())
        raise InputError(
            "the Triton binary has no stub for this Python",
            where=stub.parent.parent,
            found=version,
            hint=f"use Python {', '.join(versions)}; or {_ALTERNATIVES}",
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
