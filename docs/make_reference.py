"""Writes docs/reference.md from the code: `make docs`. A test fails when the file is not what this gives."""

from __future__ import annotations

import dataclasses
import datetime as dt
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import click
import polars as pl
from pydantic import BaseModel

from multitron_core import events, front, losses, model, report, sessions
from multitron_core.events.formats import FORMATS, ColumnMapping
from multitron_core.lake import channels, lake
from multitron_core.lake.contracts import contracts
from multitron_core.losses.objective_losses import EVENT_LOSSES
from multitron_core.losses.regularisers import REGULARISERS
from multitron_core.model.config import ModelConfig
from multitron_core.preference import operating_point
from multitron_core.training import trainer
from multitron_core.training.config import TrainingConfig
from multitron_core.training.presets import PRESETS
from orchestration.cli.app import main as cli
from orchestration.code_location import build_definitions
from orchestration.shop.home import Shop
from orchestration.shop.settings import Settings, demo_settings
from serving import deployment, scorer, server

_MISSING = dataclasses.MISSING
FILE = Path(__file__).with_name("reference.md")

CALLS: tuple[Callable[..., Any], ...] = (
    events.read_events,
    sessions.prepare_sessions,
    model.MultiTRON,
    losses.click_loss,
    losses.order_loss,
    losses.non_uniformity,
    trainer.train,
    front.evaluate_front,
    front.hypervolume,
    operating_point.choose_operating_point,
    report.write_report,
    server.TritonServer,
    deployment.deploy,
    deployment.rollback,
    scorer.score_sessions,
    lake.Lake,
    lake.Lake.replace_partition,
    lake.Lake.read_recommendations,
    channels.publish_channels,
)
"""What other teams' scripts call; these names and meanings stay."""


def reference() -> str:
    """The whole page."""
    parts = [
        "# Reference\n\nWritten by `make docs` from the code; do not edit.",
        "## Commands",
        *_commands(),
        "## shop.toml",
        *_settings(),
        "## Training settings\n\n`[model.training]` of shop.toml, or `multitron train --set NAME=VALUE`. The section "
        "may be left out: `epochs` is `schedule.epochs`. `optimiser` and `schedule` alone are "
        "`optimiser.algorithm` and `schedule.shape`. The column `presets` lists the values that presets change.",
        *_training_settings(),
        "Regularisers: "
        + ", ".join(f"`{name}`" for name in REGULARISERS)
        + ". Losses of events: "
        + ", ".join(f"`{name}`" for name in EVENT_LOSSES)
        + ".",
        "## Model settings",
        _config(ModelConfig, {name: dict(make().model) for name, make in PRESETS.items()}),
        "## Formats",
        _table(
            ("format", "files, by what their name contains", "test sessions"),
            [(f"`{each.name}`", _roles(each.roles), _split(each.rules.split)) for each in FORMATS.values()],
        ),
        *_dagster(),
        "## Tables",
        *_contracts(),
        "## Calls",
        *(_call(each) for each in CALLS),
    ]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def _commands() -> Iterable[str]:
    # As a person meets it: a command keeps the names of its help option from its first context.
    whole = click.Context(cli, info_name="multitron", terminal_width=100, **cli.context_settings)
    for name, command in sorted(cli.commands.items()):
        context = click.Context(command, info_name=name, parent=whole)
        yield f"### multitron {name}\n\n```text\n{command.get_help(context)}\n```"


def _settings() -> Iterable[str]:
    for name, field in Settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            notes = _comments(kind)
            rows = [
                (
                    f"`{each}`",
                    "must be there"
                    if setting.is_required()
                    else _default(setting.get_default(call_default_factory=True)),
                    notes.get(each, ""),
                )
                for each, setting in kind.model_fields.items()
            ]
            yield f"### [{name}]\n\n{inspect.getdoc(kind)}\n\n" + _table(("setting", "default", "meaning"), rows)
    columns = ColumnMapping()
    yield "### [source.columns]\n\nOf the format `table`; `session_gap` in minutes.\n\n" + _table(
        ("setting", "default", "meaning"),
        [
            (f"`{name}`", _default(getattr(columns, name)), meaning)
            for name, meaning in _arguments(ColumnMapping).items()
        ],
    )
    yield "### [channels.NAME]\n\n" + _table(
        ("setting", "default", "meaning"),
        [
            (f"`{each.name}`", _default(each.default), _arguments(channels.Channel).get(each.name, ""))
            for each in dataclasses.fields(channels.Channel)
            if each.name != "name"
        ],
    )


def _training_settings() -> Iterable[str]:
    for name, field in TrainingConfig.model_fields.items():
        section = field.annotation
        assert isinstance(section, type)
        assert issubclass(section, BaseModel)
        presets = {preset: dict(getattr(make().training, name)) for preset, make in PRESETS.items()}
        yield f"### {name}\n\n{inspect.getdoc(section)}\n\n" + _config(section, presets, prefix=f"{name}.")


def _config(kind: type[BaseModel], presets: Mapping[str, Mapping[str, Any]], prefix: str = "") -> str:
    """A table of settings, with the values of the presets that differ from the defaults."""
    notes = _comments(kind)
    rows = []
    for name, field in kind.model_fields.items():
        changed = [
            f"{preset}: `{values[name]}`"
            for preset, values in presets.items()
            if name in values and values[name] != field.default
        ]
        default = "must be there" if field.is_required() else _default(field.default)
        rows.append((f"`{prefix}{name}`", default, "; ".join(changed), notes.get(name, "")))
    return _table(("setting", "default", "presets", "meaning"), rows)


def _dagster() -> Iterable[str]:
    definitions = build_definitions(Shop(home=Path("var/demo"), settings=demo_settings()))
    assets = [
        (f"`{key.to_user_string()}`", spec.group_name, spec.description or "")
        for spec in definitions.resolve_all_asset_specs()
        for key in [spec.key]
    ]
    yield "## Assets\n\n" + _table(("asset", "group", "what it is"), sorted(assets, key=lambda row: (row[1], row[0])))
    repository = definitions.get_repository_def()
    jobs = [
        (f"`{job.name}`", job.description or "") for job in repository.get_all_jobs() if not job.name.startswith("__")
    ]
    yield "## Jobs\n\n" + _table(("job", "what it does"), sorted(jobs))
    schedules = [
        (f"`{each.name}`", f"`{each.cron_schedule}`", each.description or "") for each in repository.schedule_defs
    ]
    yield "## Schedules\n\nUTC; off until they are turned on.\n\n" + _table(
        ("schedule", "when", "what it does"), sorted(schedules)
    )
    sensors = [(f"`{each.name}`", each.description or "") for each in repository.sensor_defs]
    sensors = [row for row in sensors if "default_automation" not in row[0]]
    if sensors:
        yield "## Sensors\n\n" + _table(("sensor", "what it does"), sorted(sensors))
    checks = [
        (
            f"`{key.asset_key.to_user_string()}`",
            f"`{key.name}`",
            "yes" if spec.blocking else "no",
            spec.description or "",
        )
        for node in repository.asset_graph.asset_check_keys
        for key in [node]
        for spec in [repository.asset_graph.get_check_spec(key)]
    ]
    yield "## Checks\n\n" + _table(("asset", "check", "blocks", "what it asks"), sorted(checks))


def _contracts() -> Iterable[str]:
    for name, contract in contracts(pl.Int64).items():
        rows = [
            (f"`{column}`", str(dtype), note.comment)
            for (column, dtype), note in zip(contract.polars_schema().items(), contract.columns, strict=True)
        ]
        yield f"### {name}\n\n" + _table(("column", "type", "meaning"), rows)


def _call(call: Callable[..., Any]) -> str:
    owner = call.__qualname__ if "." in call.__qualname__ else call.__name__
    signature = str(inspect.signature(call)).replace("'", "")
    signature = re.sub(r"<function (\S+) at 0x[0-9a-f]+>", r"\1", signature)  # a default that is a function
    text = inspect.getdoc(call) or ""
    return f"### {call.__module__}.{owner}\n\n```text\n{owner}{signature}\n```\n\n```text\n{text}\n```"


def _comments(kind: type) -> dict[str, str]:
    """The comment behind each field, as the source has it, or the comment lines before it."""
    notes: dict[str, str] = {}
    before: list[str] = []
    for line in inspect.getsource(kind).splitlines():
        if re.match(r"    #", line):
            before.append(line.strip("# ").strip())
            continue
        found = re.match(r"    (\w+): .*?(?:  # (.*))?$", line)
        if found:
            notes[found.group(1)] = found.group(2) or " ".join(before)
        before = []
    return notes


def _arguments(kind: type) -> dict[str, str]:
    """What the docstring's Args say."""
    text = (inspect.getdoc(kind) or "").partition("Args:")[2]
    return {name: " ".join(words.split()) for name, words in re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", text, re.M)}


def _roles(roles: Any) -> str:
    return ", ".join(f"{role}: `{pattern}`".replace("|", "\\|") for role, pattern in roles.items())


def _split(rule: Any) -> str:
    if rule.by == "file":
        return "the published split: files whose name contains `test`"
    anchor = "midnight of the last day" if rule.anchor == "midnight" else "the last session's start"
    return f"{rule.by} click within {rule.days:g} days before {anchor}"


def _default(value: Any) -> str:
    if value is _MISSING:
        return "must be there"
    if isinstance(value, BaseModel):
        return "see there"
    if isinstance(value, dt.timedelta):
        return f"`{value / dt.timedelta(minutes=1):g}`"
    return f"`{value!r}`" if value not in (None, (), {}) else "none"


def _table(head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(" ".join(str(cell).split()) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


if __name__ == "__main__":
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    file.write_text(reference())
    print(file)
