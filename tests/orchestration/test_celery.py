"""The Celery executor: its settings, and five preferences at once on a cluster of this machine."""

from __future__ import annotations

import re
from pathlib import Path

import dagster as dg
import pytest
import yaml

pytest.importorskip("dagster_celery", reason="the extra `cluster` is not installed")

from deploy.celery.on_this_machine import ROOT, MissingPartError, celery_cluster, check_parts, run_at_once, workers_of
from orchestration.runtime.executors import CELERY_SETTINGS
from orchestration.runtime.partitions import night_key
from tests.orchestration.conftest import DAYS, K, copied_shop

FIVE = ["0.00", "0.25", "0.50", "0.75", "1.00"]
TABLES = ("recommendations", "item_recommendations", "fallback_recommendations")


def test_celery_yaml_has_the_settings_of_the_executor() -> None:
    worker = yaml.safe_load((ROOT / "deploy/celery/celery.yaml").read_text())["execution"]["config"]["config_source"]
    assert {name: worker[name] for name in CELERY_SETTINGS} == CELERY_SETTINGS


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_celery_workers_score_five_preferences_at_once(ingested_home: Path, tmp_path: Path) -> None:
    try:
        check_parts()
    except MissingPartError as error:
        pytest.skip(str(error))
    day = DAYS[-1]
    with (
        copied_shop(ingested_home, tmp_path / "local") as local,
        copied_shop(ingested_home, tmp_path / "celery") as shop,
    ):
        for each in (local, shop):
            each.change(scoring={"pi": FIVE, "k": K})
            assert each.run("session_preparation", str(day)).success
        for pi in FIVE:
            assert local.run("scoring", night_key(day, pi)).success
        folder = tmp_path / "cluster"
        folder.mkdir()
        with celery_cluster(shop.home, ("one", "two"), folder) as logs:
            runs = run_at_once("scoring", [night_key(day, pi) for pi in FIVE], folder)
            assert [run.status for run in runs] == [dg.DagsterRunStatus.SUCCESS] * 5, _ends_of(logs)
            by_step = [workers_of(run) for run in runs]
        for table in TABLES:
            for pi in FIVE:
                expected, scored = (each.lake.read_recommendations(pi, day, table=table) for each in (local, shop))
                assert len(expected), (table, pi)
                assert scored.equals(expected), (table, pi)
        columns = ["table_name", "run_date", "pi", "rows", "lists"]  # the checksum depends on random file names
        released = [each.lake.publications().select(columns).sort(columns) for each in (local, shop)]
        assert released[0].equals(released[1])
    assert all("published" in steps for steps in by_step)
    assert {name.split("@")[0].removeprefix("dagster-") for steps in by_step for name in steps.values()} == set(logs)
    for log in logs.values():
        assert re.search(r"execute_plan\[.*succeeded", log.read_text()), log


def _ends_of(logs: dict[str, Path]) -> str:
    """The ends of the log files of the workers."""
    return "\n".join(log.read_text()[-2000:] for log in logs.values())


def test_assets_name_their_celery_queue(deployed_home: Path) -> None:
    from orchestration.code_location import build_definitions
    from orchestration.shop.home import load_shop

    graph = build_definitions(load_shop(deployed_home)).resolve_asset_graph()
    queues = {
        node.key.to_user_string(): node.assets_def.op.tags["dagster-celery/queue"]
        for node in graph.asset_nodes
        if isinstance(node.assets_def, dg.AssetsDefinition)
    }
    assert queues["model"] == queues["front"] == "gpu"
    assert queues["events"] == queues["training_sessions"] == queues["scoring_sessions"] == "ingestion"
    assert queues["recommendations"] == queues["published"] == "scoring"
    assert set(queues.values()) == {"ingestion", "gpu", "scoring"}
