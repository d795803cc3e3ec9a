"""The location of the Triton binary, and the backend directory."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from multitron_core.errors import InputError
from serving.server import TritonServer
from serving.triton_home import assemble_backend, find_triton_home

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def test_find_triton_home_names_the_alternatives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTITRON_TRITON_HOME", str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"no Triton binary.*urls=.*in-process scorer"):
        find_triton_home()
    with pytest.raises(InputError, match="no Triton binary"), TritonServer(tmp_path / "repository"):
        pass


def test_find_triton_home_prefers_the_argument(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTITRON_TRITON_HOME", str(tmp_path / "nowhere"))
    binary = tmp_path / "given" / "pytriton" / "tritonserver" / "bin" / "tritonserver"
    binary.parent.mkdir(parents=True)
    binary.touch()
    assert find_triton_home(tmp_path / "given") == binary.parents[1]


def test_assemble_backend_links_the_stub_of_this_python(tmp_path: Path) -> None:
    stub = tmp_path / "home" / "python_backend_stubs" / PYTHON / "triton_python_backend_stub"
    stub.parent.mkdir(parents=True)
    stub.write_text("stub")
    backends = assemble_backend(tmp_path / "home", tmp_path)
    assert (backends / "python" / stub.name).read_text() == "stub"


def test_assemble_backend_names_the_python_versions(tmp_path: Path) -> None:
    (tmp_path / "python_backend_stubs" / "3.1").mkdir(parents=True)
    with pytest.raises(InputError, match=rf"no stub for this Python.*{PYTHON}.*use Python 3\.1;"):
        assemble_backend(tmp_path, tmp_path)
