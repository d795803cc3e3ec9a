"""The command `multitron`: a shop from the shell. Every subcommand is thin over what the assets call.

The commands' work stands in `orchestration.commands` and `reading`, imported when one of them runs: help appears at
once.
"""

from __future__ import annotations

import contextlib
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from multitron_core.errors import MultitronError

HOME_VARIABLE = "MULTITRON_HOME"


class _Command(click.Command):
    """A command whose help keeps the line breaks of its examples."""

    def __init__(self, *arguments: Any, examples: str = "", **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.examples = [line.strip() for line in examples.strip().splitlines()]

    def format_epilog(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Examples"):
            for line in self.examples:
                formatter.write(f"  {line}\n")


class _InOrder(click.Group):
    """A group whose help lists the commands as one comes to need them."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_InOrder, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="multitron-batch")
def main() -> None:
    """Nightly recommendation tables, one for each trade-off between clicks and orders.

    A shop is a folder with a shop.toml, its home: --home, or the variable MULTITRON_HOME, or var/demo. `multitron demo`
    makes one. pi is the weight on orders, "0.00" (clicks alone) to "1.00" (orders alone).

    \b
    The way of a model:    train -> front -> report -> deploy   (or the job `training` in the UI)
    The way of a night:    score -> read                        (or the sensor `nights` in the UI)
    """


def command(examples: str) -> Callable[[Callable[..., Any]], click.Command]:
    """A subcommand with --home and --json whose function returns what --json prints, and (text, value) otherwise.

    Errors of ours end with status 2 and a line that says what to do; with --json they are JSON too.
    """

    def decorate(function: Callable[..., tuple[str, Any]]) -> click.Command:
        @functools.wraps(function)
        def run(as_json: bool, **options: Any) -> None:
            try:
                # What a library prints goes beside the answer, so that the answer can be piped.
                with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
                    text, value = function(**options)
            except MultitronError as error:
                if as_json:
                    parts = {name: getattr(error, name) for name in ("what", "where", "found", "hint")}
                    click.echo(json.dumps({"error": parts}, indent=2, default=str))
                click.echo(f"error: {error}", err=True)
                sys.exit(2)
            except KeyboardInterrupt:
                click.echo("stopped", err=True)
                sys.exit(130)
            click.echo(json.dumps(value, indent=2, default=str) if as_json else text)
            if isinstance(value, dict) and value.get("failed"):
                sys.exit(1)

        run = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")(run)
        run = click.option(
            "--home",
            envvar=HOME_VARIABLE,
            type=click.Path(path_type=Path),
            default="var/demo",
            show_default=True,
            help=f"The shop's home folder.  [env: {HOME_VARIABLE}]",
        )(run)
        decorated: click.Command = main.command(cls=_Command, examples=examples)(run)
        return decorated

    return decorate


MODEL = click.option("--model", help="A model version or folder; the newest one by default.")
OBJECTIVE = click.option(
    "--objective",
    default="order_density",
    show_default=True,
    help="What the operating point is best in: order_density, order_recall_20, recall_x_density, order_loss.",
)
ALLOWED = click.option(
    "--max-click-recall-loss", type=float, default=0.02, show_default=True, help="Click recall that it may cost."
)


@command(
    """
    multitron demo
    multitron demo --home var/mine --data ~/raw --format diginetica --split-days 2
    """
)
@click.option("--data", type=click.Path(path_type=Path), help="Folder of raw files; without it a shop is simulated.")
@click.option("--format", help="Format of the raw files: diginetica, yoochoose, otto, table, or one of your own.")
@click.option("--split-days", type=int, help="Days of the test set, instead of the format's own.")
@click.option("--preset", help="Training preset: demo, diginetica, yoochoose, otto, official.")
@click.option("--sessions", default=20_000, show_default=True, help="Size of the simulated shop.")
@click.option("--items", default=2_000, show_default=True, help="Size of its catalogue.")
def demo(home: Path, sessions: int, items: int, **options: Any) -> tuple[str, Any]:
    """Take a shop the whole way: raw events to recommendation tables.

    Without --data a shop is simulated. Doing it again changes nothing; a demo that was stopped goes on where it was.
    """
    from orchestration.cli import commands

    return commands.demo(home, size=(sessions, items), **options)


@command(
    """
    multitron train
    multitron train --preset diginetica --set epochs=3 --set learning_rate=0.002
    """
)
@click.option("--preset", help="Instead of the one in shop.toml.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="A setting of [model.training]; may be repeated. docs/reference.md has their names.",
)
@click.option(
    "--keep-sessions", is_flag=True, help="Train on the sessions that are prepared, without a look at events."
)
def train(home: Path, preset: str | None, settings: tuple[str, ...], keep_sessions: bool) -> tuple[str, Any]:
    """Prepare sessions and train one model.

    Sessions come from the event log; the model becomes the newest one. A training that was stopped goes on where it
    was; one that is finished is not done again. A row an epoch is printed: losses that fall, and recall where sessions
    are held out. What the model is worth say `multitron front` and `multitron baselines`.
    """
    from orchestration.cli import commands

    return commands.train(home, preset=preset, settings=settings, keep_sessions=keep_sessions)


@command(
    """
    multitron front
    multitron front --points 11 --objective order_recall_20 --max-click-recall-loss 0.01 --record newsletter
    multitron front --json | jq '.rows[] | [.pi_order, .click_recall_20]'
    """
)
@MODEL
@click.option("--points", type=int, show_default="front_points of [model]", help="Preferences to measure.")
@OBJECTIVE
@ALLOWED
@click.option("--record", metavar="NAME", help="Record the operating point in the model folder as NAME.")
def front(home: Path, **options: Any) -> tuple[str, Any]:
    """Measure a model's front.

    Losses and exact metrics at each preference, how steadily they follow it, what they change over the points that no
    other dominates, both hypervolumes, with intervals, and the pi that a constraint leads to. As pi_order rises, the
    order loss should fall and the click loss rise; a dominated point is no better than another in either, so nobody
    should choose it. Table and pictures are kept in the model folder, the points in the Delta table `fronts`.
    """
    from orchestration.cli import commands

    return commands.front(home, **options)


@command(
    """
    multitron report
    multitron report --out ~/front.html --objective order_recall_20
    """
)
@MODEL
@click.option("--out", type=click.Path(path_type=Path), help="The file; by default report.html in the model folder.")
@OBJECTIVE
@ALLOWED
def report(home: Path, **options: Any) -> tuple[str, Any]:
    """Write one HTML file about a model, for people.

    The front beside the paper's, metrics, baselines, example sessions, the data, the settings.
    """
    from orchestration.cli import commands

    return commands.report(home, **options)


@command(
    """
    multitron baselines
    multitron baselines --json
    """
)
def baselines(home: Path) -> tuple[str, Any]:
    """Measure what a model has to beat.

    Popularity, co-visitation and session neighbours, on the same test steps. A model whose click recall stays below
    co-visitation (gate_baseline of [model]) is not deployed.
    """
    from orchestration.cli import commands

    return commands.baselines(home)


@command(
    """
    multitron deploy
    multitron deploy --model 717393f32ab1
    """
)
@MODEL
def deploy(home: Path, model: str | None) -> tuple[str, Any]:
    """Deploy a model to Triton behind its gates.

    It is loaded beside the live one, asked golden questions, compared; only then it goes live. If it is refused, the
    old one stays.
    """
    from orchestration.cli import commands

    return commands.deploy(home, model=model)


@command(
    """
    multitron rollback
    multitron rollback --version 3
    """
)
@click.option("--version", type=int, help="A kept version; by default the one that was live before.")
def rollback(home: Path, version: int | None) -> tuple[str, Any]:
    """Make a kept version live again.

    For a model that went live and should not have. Tables keep the lists that they have, each row with the version that
    made it: `multitron score` replaces those of a night.
    """
    from orchestration.cli import commands

    return commands.rollback(home, version=version)


@command(
    """
    multitron score
    multitron score --date 2026-01-08 --pi 0.25 --pi 0.50
    multitron score --date 2026-01-05 --until 2026-01-08
    """
)
@click.option("--date", help="The night, as 2026-01-08; by default the last day with events.")
@click.option("--until", help="Score every night from --date to this one.")
@click.option("--pi", "preferences", multiple=True, help="A preference; may be repeated. By default all of the shop.")
def score(home: Path, **options: Any) -> tuple[str, Any]:
    """Score nights: replace, check and release their tables.

    Each (night, pi) is a run of the job `scoring`, as in the UI: what fails a check is not released. Sessions of a
    night are prepared when they are missing. Status 1 when a run failed; the others are done.
    """
    from orchestration.cli import commands

    return commands.score(home, **options)


@command(
    """
    multitron read --channel newsletter
    multitron read --pi 0.50 --date 2026-01-08 --key 19670
    multitron read --pi 0.50 --out lists.parquet
    """
)
@click.option("--channel", help="What this channel shows; shop.toml has their names.")
@click.option("--pi", help="Or one preference.")
@click.option("--date", default="latest", show_default=True, help="A night, or the latest one released.")
@click.option(
    "--table",
    default="recommendations",
    show_default=True,
    help="Or item_recommendations, or fallback_recommendations.",
)
@click.option("--key", "keys", multiple=True, help="Only the list of this session (or item); may be repeated.")
@click.option("--limit", default=20, show_default=True, help="Rows to print; --out writes all.")
@click.option("--out", type=click.Path(path_type=Path), help="Write .parquet, .csv or .ndjson instead.")
def read(home: Path, **options: Any) -> tuple[str, Any]:
    """Read what was released, as downstream teams do.

    Rows of a list: rank 1 is the best item, scores compare within one list only. Without --date it is the latest night
    that passed its checks, whole. docs/tables.md has every column, and the same in Python and SQL.
    """
    from orchestration.cli import read

    return read.read(home, **options)


@command(
    """
    multitron status
    multitron status --nights 1 --check || echo "look at the night"
    """
)
@click.option("--nights", default=7, show_default=True, help="How many nights, the newest first.")
@click.option("--check", is_flag=True, help="End with status 1 when a night is late or failed, or nights do not start.")
def status(home: Path, nights: int, check: bool) -> tuple[str, Any]:
    """Tell what became of each night.

    Each pi is published, running, waiting (for files or a step before it), late (past the deadline) or failed, with the
    reason and the command that does it again. Below: whether nights start by themselves, and if not, what starts them.
    """
    from orchestration.cli import commands

    return commands.status(home, nights=nights, check=check)


if __name__ == "__main__":
    main(prog_name="multitron")
