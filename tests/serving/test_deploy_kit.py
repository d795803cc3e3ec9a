"""The deploy kit: each file by a parser or schema of its format, and the start script on a real server."""

from __future__ import annotations

import os
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
from serving.deployment import deploy
from serving.scorer import score_sessions
from serving.server import ADMIN_KEY_VARIABLE, LOOPBACK, TritonServer, _chosen
from serving.triton_home import assemble_backend, find_triton_home
from tests.serving.conftest import process_of_its_model, require_triton, some_sessions, wait_until

KIT = Path(__file__).parents[2] / "serving" / "deploy"


@pytest.fixture(scope="module")
def manifests() -> dict[str, dict[str, Any]]:
    documents = list(yaml.safe_load_all((KIT / "kubernetes.yaml").read_text()))
    return {document["kind"]: document for document in documents}


def test_the_image_is_pinned_and_runs_as_nobody_special() -> None:
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
    asked = [line for line in (KIT / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    assert asked
    assert set(asked) <= set(locked)


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
    with pytest.raises(ValueError, match="read_only"):  # the schema does look
        ComposeSpecification.model_validate({"services": {"triton": {"read_only": ["no"]}}})


def test_the_manifest_follows_the_schema_of_kubernetes(manifests: dict[str, dict[str, Any]]) -> None:
    for document in manifests.values():
        kubernetes_validate.validate(document, "1.31", strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):  # the schema does look
        kubernetes_validate.validate({**manifests["Service"], "spec": {"ports": "8001"}}, "1.31", strict=True)


def test_the_manifest_has_what_a_cluster_needs(manifests: dict[str, dict[str, Any]]) -> None:
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
def served(repository: Path, run_dir: Path, key: str) -> Iterator[str]:
    """The start script on the binary that is here; gives the gRPC address."""
    home = find_triton_home()
    ports = _chosen({"grpc": 0, "http": 0, "metrics": 0})
    options = [f"--{name}-{what}" for name, port in ports.items() for what in (f"address={LOOPBACK}", f"port={port}")]
    process = subprocess.Popen(
        [str(KIT / "serve.sh"), f"--backend-directory={assemble_backend(home, run_dir)}", *options],
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "TRITON_SERVER": str(home / "bin" / "tritonserver"),
            "MODEL_REPOSITORY": str(repository),
            ADMIN_KEY_VARIABLE: key,
        },
        stdout=(run_dir / "log").open("wb"),
        stderr=subprocess.STDOUT,
    )
    try:
        yield f"{LOOPBACK}:{ports['grpc']}"
    finally:
        process.terminate()
        process.wait(60)


def test_without_a_key_it_does_not_start() -> None:
    environment = {name: value for name, value in os.environ.items() if name != ADMIN_KEY_VARIABLE}
    done = subprocess.run([str(KIT / "serve.sh")], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert ADMIN_KEY_VARIABLE in done.stderr


@pytest.mark.slow
def test_the_liveness_probe_sees_that_the_process_of_a_model_has_ended(tmp_path: Path, model_dir: Path) -> None:
    require_triton()
    port = _chosen({"http": 0})["http"]
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
        deploy(model_dir, server, golden_pi=["0.50"])
        wait_until(lambda: probe().returncode == 0)
        ended = process_of_its_model(server)
        os.kill(ended, signal.SIGKILL)
        wait_until(lambda: f"process {ended} of a model has ended" in probe().stderr)
        server.stop()
        assert probe().returncode != 0


@pytest.mark.slow
def test_model_control_needs_the_key_and_scoring_does_not(
    tmp_path: Path, model_dir: Path, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_triton()
    repository = tmp_path / "repository"
    repository.mkdir()
    with served(repository, tmp_path, "right") as url:
        monkeypatch.delenv(ADMIN_KEY_VARIABLE, raising=False)
        with TritonServer(repository, urls=url) as server:
            for key in (None, "wrong"):
                if key:
                    monkeypatch.setenv(ADMIN_KEY_VARIABLE, key)
                with pytest.raises(InputError, match="only key holders"):
                    deploy(model_dir, server, golden_pi=["0.50"])
            monkeypatch.setenv(ADMIN_KEY_VARIABLE, "right")
            deploy(model_dir, server, golden_pi=["0.50"])
        monkeypatch.delenv(ADMIN_KEY_VARIABLE)
        with TritonServer(urls=url) as server:
            sessions = some_sessions(vocabulary, 20)
            frames = score_sessions(sessions, "0.50", 5, scorer=server.scorer(), vocabulary=vocabulary)
            assert sum(len(frame) for frame in frames) == 100
            with pytest.raises(InputError, match="only key holders"):
                server.unload("multitron")
    # Started again, it serves what was deployed.
    (tmp_path / "again").mkdir()
    with served(repository, tmp_path / "again", "other") as url, TritonServer(urls=url) as server:
        assert server.live_model().model_version == "first"
