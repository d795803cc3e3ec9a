"""The Triton model repository of a shop: numbered version folders and one `config.pbtxt`.

`config.pbtxt` is the single record of what is live. Its parameters name the live version. Its version policy names the
versions that the server loads: the live one and the previous one, so that clients of the previous one can finish. The
file is replaced atomically, so a restarted server always serves the live version.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from google.protobuf import text_format  # type: ignore[import-untyped]
from tritonclient.grpc import model_config_pb2 as pb

from multitron_core.errors import InputError
from multitron_core.utils.atomic_file import atomic_file
from multitron_core.utils.file_lock import file_lock
from serving.interface import ONNX_BACKEND, LiveModel
from serving.manifest import ONNX_FILE, Manifest, read_manifest

MODEL_NAME = "multitron"
"""Default name of the model in the repository."""
ASSORTMENT = "assortment"
"""Name of the only input without a session dimension."""
WARMUP_SESSIONS = 64
"""Sessions in the warm-up request of a batched version."""


@dataclass(frozen=True)
class InstanceSettings:
    """Instances, threads, memory and batching of a version on the server.

    The default is one instance with all threads: on a CPU a second instance competes for the same cores.
    """

    instances: int = 1
    on_gpu: bool = False
    threads_per_instance: int = 0  # 0: torch's default, all cores
    score_memory_mib: int = 256  # memory limit for the scores of one matrix product, per instance, in MiB
    max_batch_size: int = 4096  # largest number of sessions per request, and per batch that the server forms
    max_queue_delay_us: int = 0  # microseconds that a request waits for others to form a batch


DEFAULT_SETTINGS = InstanceSettings()
_SETTINGS = tuple(field.name for field in fields(InstanceSettings))


@dataclass(frozen=True)
class ModelRepository:
    """The folder of one model in a Triton repository.

    Args:
        root: the repository.
        model_name: name of the model, which is the name of its folder.
    """

    root: Path
    model_name: str = MODEL_NAME

    @property
    def folder(self) -> Path:
        """The folder with the versions and `config.pbtxt`."""
        return self.root / self.model_name

    def versions(self) -> list[int]:
        """The numbers of the verified versions, ascending."""
        if not self.folder.is_dir():
            return []
        return sorted(int(path.name) for path in self.folder.iterdir() if path.name.isdecimal())

    def version_folder(self, version: int) -> Path:
        """The folder of a version."""
        return self.folder / str(version)

    def candidate_folder(self, version: int) -> Path:
        """The folder of a version until it is verified. The next deployment removes one that a killed one left."""
        return self.folder / f".staging-{version}"

    def warmup_folder(self, version: int) -> Path:
        """The folder with the warm-up inputs of a version; Triton reads them from `warmup`, next to the versions."""
        return self.folder / "warmup" / str(version)

    def read_config(self) -> pb.ModelConfig | None:
        """The deployed configuration; None before the first deployment.

        Raises:
            InputError: `config.pbtxt` is damaged or was not written by a deployment.
        """
        path = self.folder / "config.pbtxt"
        if not path.exists():
            return None
        try:
            config = text_format.Parse(path.read_text(), pb.ModelConfig())
            live_model_of(config)
        except (text_format.ParseError, UnicodeDecodeError, InputError) as error:
            raise InputError(
                "config.pbtxt cannot be read", where=path, found=str(error), hint="remove it and deploy again"
            ) from error
        return config

    def write_config(self, config: pb.ModelConfig) -> None:
        """Replace `config.pbtxt` atomically."""
        path = self.folder / "config.pbtxt"
        with atomic_file(path) as new:
            new.write_text(text_format.MessageToString(config))

    def prune(self, keep: int) -> list[int]:
        """Remove all but the newest versions; versions that the configuration names always stay.

        Args:
            keep: number of versions to keep, >= 1.

        Returns:
            The numbers of the removed versions.
        """
        config = self.read_config()
        loaded = set(config.version_policy.specific.versions) if config else set()
        removed = [version for version in self.versions()[:-keep] if version not in loaded]
        for version in removed:
            self.remove(version)
        return removed

    def remove(self, version: int) -> None:
        """Remove a version or candidate and its warm-up inputs; does nothing where they do not exist."""
        for folder in (self.candidate_folder(version), self.version_folder(version), self.warmup_folder(version)):
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the repository against other deployments, and remove what a killed deployment left.

        Raises:
            InputError: another deployment holds the lock.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        refusal = InputError("another deployment is under way", where=self.folder, hint="wait until it has finished")
        with file_lock(self.folder / ".lock", refusal=refusal):
            for left_over in self.folder.glob(".staging-*"):
                shutil.rmtree(left_over)
            yield


def make_config(
    repository: ModelRepository, *, live: int, loaded: list[int], settings: InstanceSettings
) -> pb.ModelConfig:
    """The Triton configuration of a model.

    Args:
        repository: contains the version folder of `live`.
        live: number of the live version.
        loaded: numbers of the versions that the server loads; contains `live`.
        settings: instances, threads, memory and batching.
    """
    manifest = read_manifest(repository.version_folder(live))
    config = pb.ModelConfig(name=repository.model_name, backend=manifest.backend, input=_inputs(manifest))
    config.output.add(name="item_index", data_type=pb.TYPE_INT32, dims=[-1])
    config.output.add(name="score", data_type=pb.TYPE_FP32, dims=[-1])
    config.instance_group.add(
        count=settings.instances,
        kind=pb.ModelInstanceGroup.KIND_GPU if settings.on_gpu else pb.ModelInstanceGroup.KIND_CPU,
    )
    if manifest.backend == ONNX_BACKEND:
        # No batch dimension in Triton's sense: the sessions of a request share one assortment, and requests with
        # different k or length must not be batched together.
        config.default_model_filename = ONNX_FILE
        for tensor in [*config.input, *config.output]:
            if tensor.name != ASSORTMENT:
                tensor.dims.insert(0, -1)
        for option in ("intra_op_thread_count", "inter_op_thread_count"):
            threads = settings.threads_per_instance if option.startswith("intra") else 1
            config.parameters[option].string_value = str(threads)
    else:
        config.default_model_filename = "model.py"
        config.max_batch_size = settings.max_batch_size
        config.dynamic_batching.max_queue_delay_microseconds = settings.max_queue_delay_us
    config.model_warmup.append(_warmup(config, live))
    config.version_policy.specific.versions.extend(sorted(loaded))
    for name, value in {
        "live_version": live,
        "model_version": manifest.model_version,
        "vocabulary_hash": manifest.vocabulary_hash,
        "items": manifest.items,
        "max_length": manifest.max_length,
        **{name: getattr(settings, name) for name in _SETTINGS},
    }.items():
        config.parameters[name].string_value = value if isinstance(value, str) else json.dumps(value)
    return config


def _inputs(manifest: Manifest) -> list[pb.ModelInput]:
    """The inputs of a version, without a batch dimension."""
    inputs = [
        pb.ModelInput(name="items", data_type=pb.TYPE_INT64, dims=[-1]),
        pb.ModelInput(name="lengths", data_type=pb.TYPE_INT64, dims=[1]),
        pb.ModelInput(name="pi", data_type=pb.TYPE_FP32, dims=[manifest.objectives]),
        pb.ModelInput(name="k", data_type=pb.TYPE_INT32, dims=[1]),
    ]
    if manifest.backend == ONNX_BACKEND:
        bytes_ = (manifest.items + 7) // 8
        return [
            *inputs,
            pb.ModelInput(name="excluded", data_type=pb.TYPE_INT64, dims=[-1]),
            pb.ModelInput(name=ASSORTMENT, data_type=pb.TYPE_UINT8, dims=[bytes_]),
        ]
    return [*inputs, pb.ModelInput(name="excluded", data_type=pb.TYPE_INT64, dims=[-1], optional=True)]


def _warmup(config: pb.ModelConfig, version: int) -> pb.ModelWarmup:
    """The request that the server answers before an instance is ready: sessions with one click on the first item.

    Triton can fill a warm-up with zeros or random numbers, which are not item indices. The values therefore come from
    the files of `write_warmup`.
    """
    batched = config.max_batch_size > 0
    warmup = pb.ModelWarmup(name="one click", batch_size=min(WARMUP_SESSIONS, config.max_batch_size) if batched else 1)
    for tensor in config.input:
        if tensor.optional:
            continue
        entry = warmup.inputs[tensor.name]
        entry.data_type = tensor.data_type
        entry.dims.extend(1 if size == -1 else size for size in tensor.dims)
        entry.input_data_file = f"{version}/{tensor.name}"
    return warmup


def write_warmup(repository: ModelRepository, version: int, manifest: Manifest) -> None:
    """Write the input files of a version's warm-up request.

    Args:
        repository: the repository of the version.
        version: number of the version.
        manifest: manifest of the version.
    """
    folder = repository.warmup_folder(version)
    folder.mkdir(parents=True, exist_ok=True)
    values: dict[str, np.ndarray] = {
        "items": np.ones(1, np.int64),
        "lengths": np.ones(1, np.int64),
        "pi": np.full(manifest.objectives, 1 / manifest.objectives, np.float32),
        "k": np.full(1, min(20, manifest.items), np.int32),
        "excluded": np.zeros(1, np.int64),
        ASSORTMENT: np.full((manifest.items + 7) // 8, 255, np.uint8),
    }
    for name, array in values.items():
        (folder / name).write_bytes(array.tobytes())


def settings_of(config: pb.ModelConfig) -> InstanceSettings:
    """The settings stored in a configuration that `make_config` made."""
    return InstanceSettings(**{name: json.loads(config.parameters[name].string_value) for name in _SETTINGS})


def live_model_of(config: pb.ModelConfig) -> LiveModel:
    """Metadata of the live version, from a model configuration.

    Args:
        config: a model configuration, from `config.pbtxt` or from a server.

    Raises:
        InputError: the configuration was not written by a deployment of this project.
    """
    parameters = {name: value.string_value for name, value in config.parameters.items()}
    try:
        return LiveModel(
            model_name=config.name,
            version=int(parameters["live_version"]),
            model_version=parameters["model_version"],
            vocabulary_hash=parameters["vocabulary_hash"],
            items=int(parameters["items"]),
            max_length=int(parameters["max_length"]),
            objectives=next(tensor.dims[-1] for tensor in config.input if tensor.name == "pi"),
            backend=config.backend,
        )
    except (KeyError, ValueError, StopIteration) as error:
        raise InputError(
            "the model on the server was not deployed by this project",
            where=config.name,
            found=sorted(parameters),
            hint="deploy a model, or give the name of a deployed one",
        ) from error
