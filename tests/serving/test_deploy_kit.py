"""The files of `serving/deploy`: each by a parser or schema of its format, the scripts on a real server."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from compose_pydantic import ComposeSpecification
from dockerfile_parse import DockerfileParser

from multitron_core.errors import InputError
from multitron_core.sessions.vocabulary import Vocabulary
from serving.addresses import LOOPBACK, free_ports
from serving.deployment import deploy
from serving.interface import ONNX_BACKEND
from serving.scorer import score_sessions
from serving.server import ADMIN_KEY_VARIABLE, TritonServer
from serving.triton_home import assemble_backend
from tests.serving.conftest import model_process, some_sessions, wait_until

KIT = Path(__file__).parents[2] / "serving" / "deploy"


@pytest.fixture(scope="module")
def manifests() -> dict[str, dict[str, Any]]:
    documents = list(yaml.safe_load_all((KIT / "kubernetes.yaml").read_text()))
    return {document["kind"]: document for document in documents}


def test_dockerfile_pins_the_image_and_sets_a_user() -> None:
    parser = DockerfileParser(fileobj=(KIT / "Dockerfile").open("rb"))
    steps = [(step["instruction"], step["value"]) for step in parser.structure if step["instruction"] != "COMMENT"]
    images = [value.split("=", 1)[1] for instruction, value in steps if instruction == "ARG"]
    assert images == ["nvcr.io/nvidia/tritonserver:24.10-py3"]
    assert [value for instruction, value in steps if instruction == "FROM"] == [
        "${TRITON_IMAGE} AS onnxruntime",
        "onnxruntime AS python",
    ]
    stages: list[list[str]] = []
    for instruction, value in steps:
        if instruction == "FROM":
            stages.append([])
        if instruction == "USER":
            stages[-1].append(value)
        if instruction == "COPY":
            assert (KIT / value.split()[-2]).is_file()
    assert [users[-1] for users in stages] == ["1000:1000", "1000:1000"]
    locked = (KIT.parents[1] / "requirements.lock").read_text().split()
    required = [line for line in (KIT / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    assert required
    assert set(required) <= set(locked)


def test_compose_follows_its_specification() -> None:
    written = yaml.safe_load((KIT / "compose.yaml").read_text())
    ComposeSpecification.model_validate({name: part for name, part in written.items() if not name.startswith("x-")})
    assert set(written["services"]) == {"triton", "triton-gpu"}
    for service in written["services"].values():
        assert service["read_only"]
        assert service["user"] == "1000:1000"
        assert service["cap_drop"] == ["ALL"]
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        assert all(volume["read_only"] for volume in service["volumes"])
    with pytest.raises(ValueError, match="read_only"):  # the schema is not empty
        ComposeSpecification.model_validate({"services": {"triton": {"read_only": ["no"]}}})


def test_kubernetes_follows_its_schema(manifests: dict[str, dict[str, Any]]) -> None:
    for document in manifests.values():
        kubernetes_validate.validate(document, "1.31", strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):  # the schema is not empty
        kubernetes_validate.validate({**manifests["Service"], "spec": {"ports": "8001"}}, "1.31", strict=True)


def test_kubernetes_has_probes_limits_and_matching_labels(manifests: dict[str, dict[str, Any]]) -> None:
    pod = manifests["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert {"startupProbe", "livenessProbe", "readinessProbe"} <= set(container)
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert not pod["automountServiceAccountToken"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    scaled = manifests["HorizontalPodAutoscaler"]["spec"]
    assert scaled["scaleTargetRef"]["name"] == manifests["Deployment"]["metadata"]["name"]
    assert scaled["maxReplicas"] > scaled["minReplicas"]
    labels = manifests["Deployment"]["spec"]["template"]["metadata"]["labels"]
    chosen = {"Deployment": "selector", "PodDisruptionBudget": "selector", "NetworkPolicy": "podSelector"}
    selectors = [manifests[kind]["spec"][name]["matchLabels"] for kind, name in chosen.items()]
    selectors.append(manifests["Service"]["spec"]["selector"])
    assert all(selector.items() <= labels.items() for selector in selectors)


@contextmanager
def served(triton: Path, repository: Path, run_dir: Path, key: str) -> Iterator[str]:
    """Run `serve.sh` on the installed binary; yields the gRPC address."""
    ports = free_ports({"grpc": 0, "http": 0, "metrics": 0})
    options = [f"--{name}-{part}" for name, port in ports.items() for part in (f"address={LOOPBACK}", f"port={port}")]
    run_dir.mkdir()
    with (run_dir / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(KIT / "serve.sh"), f"--backend-directory={assemble_backend(triton, run_dir)}", *options],
            env={
                **os.environ,
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "TRITON_SERVER": str(triton / "bin" / "tritonserver"),
                "MODEL_REPOSITORY": str(repository),
                ADMIN_KEY_VARIABLE: key,
            },
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield f"{LOOPBACK}:{ports['grpc']}"
    finally:
        process.terminate()
        process.wait(60)


def test_serve_sh_needs_a_key() -> None:
    environment = {name: value for name, value in os.environ.items() if name != ADMIN_KEY_VARIABLE}
    done = subprocess.run([str(KIT / "serve.sh")], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert ADMIN_KEY_VARIABLE in done.stderr


@pytest.mark.slow
def test_serve_sh_guards_model_control_and_not_scoring(
    triton: Path,
    deployed: Path,
    tmp_path: Path,
    model_dir: Path,
    vocabulary: Vocabulary,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    with served(triton, repository, tmp_path / "first", "right") as url:
        monkeypatch.delenv(ADMIN_KEY_VARIABLE, raising=False)
        with TritonServer(repository, urls=url) as server:
            for key in (None, "wrong"):
                if key:
                    monkeypatch.setenv(ADMIN_KEY_VARIABLE, key)
                with pytest.raises(InputError, match="requires a key"):  # the export for ONNX is the fast one
                    deploy(model_dir, server, golden_pi=["0.50"], backend=ONNX_BACKEND)
            shutil.copytree(deployed, repository, dirs_exist_ok=True)
            monkeypatch.setenv(ADMIN_KEY_VARIABLE, "right")
            server.load("multitron")
        monkeypatch.delenv(ADMIN_KEY_VARIABLE)
        with TritonServer(urls=url) as server:
            sessions = some_sessions(vocabulary, 20)
            frames = score_sessions(sessions, "0.50", 5, scorer=server.scorer(), vocabulary=vocabulary)
            assert sum(len(frame) for frame in frames) == 100
            with pytest.raises(InputError, match="requires a key"):
                server.unload("multitron")
    # A restart loads the deployed model.
    with served(triton, repository, tmp_path / "second", "other") as url, TritonServer(urls=url) as server:
        assert server.live_model().model_version == "first"


@pytest.mark.slow
@pytest.mark.usefixtures("triton")
def test_alive_sh_fails_when_the_process_of_a_model_ended(tmp_path: Path, deployed: Path) -> None:
    port = free_ports({"http": 0})["http"]
    with TritonServer(tmp_path / "repository", http_port=port) as server:

        def probe() -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [str(KIT / "alive.sh"), str(server.process_id)],
                env={**os.environ, "HTTP_PORT": str(port)},
                capture_output=True,
                text=True,
                check=False,
            )

        assert probe().returncode == 0  # nothing is deployed yet
        shutil.copytree(deployed, tmp_path / "repository", dirs_exist_ok=True)
        server.load("multitron")
        wait_until(lambda: probe().returncode == 0)
        ended = model_process(server)
        os.kill(ended, signal.SIGKILL)
        wait_until(lambda: f"process {ended} of a model has ended" in probe().stderr)
        server.stop()
        assert probe().returncode != 0
