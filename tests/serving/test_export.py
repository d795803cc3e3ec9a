"""Version folders: their files, and what is refused."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

import pytest

from multitron_core.errors import InputError
from multitron_core.sessions.vocabulary import Vocabulary
from serving.export import archive_is_plain, export_version, verify_checksums
from serving.interface import ONNX_BACKEND
from serving.manifest import read_manifest
from tests.serving.conftest import ITEMS, write_model


def test_export_version_writes_what_the_python_backend_needs(deployed: Path, vocabulary: Vocabulary) -> None:
    folder = deployed / "multitron" / "1"
    manifest = read_manifest(folder)
    assert {path.name for path in folder.iterdir()} == {
        "exact.pt2",
        "screened.pt2",
        "weights.safetensors",
        "screen.safetensors",
        "model.py",
        "version_program.py",
        "metrics.parquet",
        "manifest.json",
    }
    assert set(manifest.files) == {path.name for path in folder.iterdir()} - {"manifest.json"}
    assert (manifest.model_version, manifest.vocabulary_hash) == ("first", vocabulary.hash)
    assert (manifest.items, manifest.max_length, manifest.objectives) == (ITEMS, 10, 2)
    for name in ("model.py", "version_program.py"):
        assert not re.search(r"(import|from)\s+(serving|multitron_core)", (folder / name).read_text())
    assert all(archive_is_plain(folder / name) for name in ("exact.pt2", "screened.pt2"))


def test_export_version_refuses_an_unknown_backend(tmp_path: Path, model_dir: Path) -> None:
    with pytest.raises(InputError, match="unknown backend"):
        export_version(model_dir, tmp_path / "1", backend="tensorrt")


def test_export_version_refuses_another_vocabulary(tmp_path: Path) -> None:
    folder, other = write_model(tmp_path / "model"), write_model(tmp_path / "other", items=ITEMS + 1)
    (folder / "vocabulary.parquet").write_bytes((other / "vocabulary.parquet").read_bytes())
    with pytest.raises(InputError, match="trained with another vocabulary"):
        export_version(folder, tmp_path / "1", backend=ONNX_BACKEND)
    assert not (tmp_path / "1").exists()


@pytest.mark.parametrize(
    ("name", "content", "plain"),
    [
        ("model/data/weights/weight_0", "numbers", False),
        ("model/data/weights/empty", "", True),
        ("model/data/weights/model_weights_config.json", json.dumps({"config": {"weight": {}}}), False),
        ("model/data/weights/model_weights_config.json", json.dumps({"config": {}}), True),
        ("model/models/model.json", "{}", True),
    ],
)
def test_archive_is_plain_without_tensors_only(tmp_path: Path, name: str, content: str, plain: bool) -> None:
    with zipfile.ZipFile(tmp_path / "program.pt2", "w") as archive:
        archive.writestr(name, content)
    assert archive_is_plain(tmp_path / "program.pt2") is plain


def test_verify_checksums_names_the_damaged_file(tmp_path: Path, model_dir: Path) -> None:
    manifest = export_version(model_dir, tmp_path / "1", backend=ONNX_BACKEND)
    assert verify_checksums(tmp_path / "1") == manifest
    (tmp_path / "1" / "model.onnx").unlink()
    with pytest.raises(InputError, match=r"the version is damaged.*model\.onnx \(no such file"):
        verify_checksums(tmp_path / "1")
