from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from multitron_core.errors import InputError
from orchestration.runtime.instance import TEMPLATE, close_dead_runs, instance_of, prepare_instance
from orchestration.shop.home import Shop
from orchestration.shop.settings import demo_settings


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    return Shop(home=tmp_path, settings=demo_settings())


def test_prepare_instance_keeps_a_changed_configuration(shop: Shop) -> None:
    environment = prepare_instance(shop)
    assert environment == {"DAGSTER_HOME": str(shop.dagster_home), "MULTITRON_HOME": str(shop.home)}
    config = shop.dagster_home / "dagster.yaml"
    assert config.read_text() == TEMPLATE.read_text()
    config.write_text("telemetry:\n  enabled: false\n")
    prepare_instance(shop)
    assert config.read_text() == "telemetry:\n  enabled: false\n"


def test_instance_of_requires_a_prepared_home(shop: Shop) -> None:
    with pytest.raises(InputError, match="no Dagster instance"):
        instance_of(shop)
    prepare_instance(shop)
    with instance_of(shop) as instance:
        assert Path(instance.root_directory) == shop.dagster_home


def test_close_dead_runs_fails_unfinished_runs_of_a_tag() -> None:
    @dg.job
    def empty() -> None: ...

    with dg.DagsterInstance.ephemeral() as instance:
        dead, other = (
            instance.create_run_for_job(empty, status=dg.DagsterRunStatus.STARTED, tags={"started_by": name})
            for name in ("demo", "daemon")
        )
        assert close_dead_runs(instance, tag="started_by", value="demo") == 1
        states = [run.status for each in (dead, other) if (run := instance.get_run_by_id(each.run_id))]
    assert states == [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.STARTED]
