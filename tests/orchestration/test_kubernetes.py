"""The Kubernetes manifests, validated by the types of the API and by the code that they start."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("dagster_k8s", reason="the extra `cluster` is not installed")

import dagster as dg
import kubernetes.client
from dagster_k8s.container_context import UserDefinedDagsterK8sConfig
from dagster_k8s.launcher import K8sRunLauncher
from dagster_k8s.models import k8s_model_from_dict, k8s_snake_case_dict

from orchestration.runtime.executors import on_queue

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "deploy/kubernetes/multitron.yaml").read_text()
DOCUMENTS: list[dict[str, Any]] = list(yaml.safe_load_all(TEXT))
NAMES = {(each["kind"], each["metadata"]["name"]) for each in DOCUMENTS}


def as_type(document: dict[str, Any]) -> object:
    """A document as the type of the API; raises for a field that the type does not have."""
    model = getattr(kubernetes.client, f"V1{document['kind']}")
    return k8s_model_from_dict(model, k8s_snake_case_dict(model, document))


def of(kind: str, name: str) -> dict[str, Any]:
    (found,) = (each for each in DOCUMENTS if (each["kind"], each["metadata"]["name"]) == (kind, name))
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda each: f"{each['kind']}-{each['metadata']['name']}")
def test_manifests_use_only_fields_of_the_api(document: dict[str, Any]) -> None:
    as_type(document)


def test_as_type_refuses_a_misspelt_field() -> None:
    wrong = {**of("Service", "multitron-ui"), "spec": {"selectors": {"app": "x"}}}
    with pytest.raises(Exception, match="selectors"):
        as_type(wrong)


def test_manifests_refer_to_existing_objects() -> None:
    text = TEXT + yaml.safe_dump(DOCUMENTS)
    for kind, pattern in (
        ("ConfigMap", r"configMap(?:Ref)?:\s*\{?\s*name: ([\w-]+)"),
        ("ServiceAccount", r"serviceAccountName: ([\w-]+)"),
    ):
        for name in re.findall(pattern, text):
            assert (kind, name) in NAMES, name
    for deployment in (each for each in DOCUMENTS if each["kind"] == "Deployment"):
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
        pod = deployment["spec"]["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} <= volumes
    for service in (each for each in DOCUMENTS if each["kind"] == "Service"):
        port = service["spec"]["ports"][0]["targetPort"]
        container = of("Deployment", service["metadata"]["name"])["spec"]["template"]["spec"]["containers"][0]
        assert port in {each["name"] for each in container["ports"]}


def validate_as(schema: Any, config: dict[str, Any]) -> None:
    """Check a configuration by a schema of Dagster, as the configuration of an op."""

    @dg.op(config_schema=schema)
    def configured() -> None: ...

    @dg.job
    def job() -> None:
        configured()

    dg.validate_run_config(job, {"ops": {"configured": {"config": config}}})


def test_manifests_configure_a_valid_dagster_instance() -> None:
    instance = yaml.safe_load(of("ConfigMap", "multitron-instance")["data"]["dagster.yaml"])
    local = yaml.safe_load((ROOT / "orchestration/runtime/dagster.yaml").read_text())
    assert set(local) <= set(instance)
    launcher = instance["run_launcher"]["config"]
    validate_as(K8sRunLauncher.config_type(), launcher)
    with pytest.raises(dg.DagsterInvalidConfigError, match="job_imag"):
        validate_as(K8sRunLauncher.config_type(), {**launcher, "job_imag": "x"})
    assert ("ConfigMap", launcher["instance_config_map"]) in NAMES
    assert {("ConfigMap", name) for name in launcher["env_config_maps"]} <= NAMES
    assert launcher["job_image"] in TEXT.split("image: ", 2)[2]


@pytest.mark.parametrize("queue", ["ingestion", "gpu", "scoring"])
def test_on_queue_sizes_the_pod_of_a_step(queue: str) -> None:
    pod = UserDefinedDagsterK8sConfig.from_dict(on_queue(queue)["dagster-k8s/config"])  # type: ignore[arg-type]
    limits = pod.container_config["resources"]["limits"]
    assert limits["memory"]
    assert ("nvidia.com/gpu" in limits) == (queue == "gpu")
