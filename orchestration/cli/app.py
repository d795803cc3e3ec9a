"""The command `multitron`: options, help texts and exit statuses of its subcommands.

The work is in the other modules of `orchestration.cli`. A subcommand imports them when it runs, so that help appears
at once.

Exit statuses: 0 success; 1 the command ran and reports a failure (a run of a night failed, `status --check`); 2 refused
input, with one line `error: ...` on standard error; 130 stopped by Ctrl-C or SIGTERM.

The file is long because it declares all subcommands: most lines are options and help texts.
"""

from __future__ import annotations

import contextlib
import functools
import json
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from multitron_core.errors import InputError, MultitronError
from multitron_core.utils.redaction import redacted

CONTINUES = "stopped; the same command continues from here"
"""Message of an interrupted command that resumes its work."""


class _Command(click.Command):
    """A command whose help keeps the line breaks of its examples."""

    def __init__(self, *arguments: Any, examples: str = "", **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.examples = [line.strip() for line in examples.strip().splitlines()]

    def format_epilog(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Examples"):
            for line in self.examples:
                formatter.write(f"  {line}\n")


class _Group(click.Group):
    """A group that lists its commands in the order of the pipeline and reports every refused input in one form."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)

    # click overloads `main` by standalone_mode, which is always False here: errors are reported below.
    def main(  # type: ignore[override]
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **options: Any
    ) -> Any:
        """Run a command line and exit. SIGTERM stops it as Ctrl-C does: servers and runs are closed first."""
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            super().main(args, prog_name, **{**options, "standalone_mode": False})
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx else "multitron"
            _refuse(InputError(error.format_message().rstrip("."), hint=f"see `{command} --help`"))
        except MultitronError as error:
            _refuse(error)
        finally:
            signal.signal(signal.SIGTERM, before)
        sys.exit(0)


def _refuse(error: MultitronError) -> None:
    click.echo(f"error: {redacted(str(error))}", err=True)
    sys.exit(2)


@click.group(
    cls=_Group,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="multitron-batch")
@click.pass_context
def main(context: click.Context) -> None:
    """Nightly recommendation tables, one per trade-off between clicks and orders.

    A shop is a home folder with a file shop.toml. --home names it; the default is $MULTITRON_HOME, or var/demo.
    `multitron demo` makes one. pi is the weight on orders, from "0.00" (clicks only) to "1.00" (orders only).

    \b
    A model:    train -> front -> report -> deploy   (or the job `training` in the UI)
    A night:    score -> read                        (or the sensor `nights` in the UI)
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def command(examples: str) -> Callable[[Callable[..., None]], click.Command]:
    """A subcommand with the option --home, passed to the function as `home`: a path, or None for the default."""

    def decorate(function: Callable[..., None]) -> click.Command:
        with_home = click.option(
            "--home",
            type=click.Path(path_type=Path),
            help="Home folder of the shop.  [default: $MULTITRON_HOME, or var/demo]",
        )(function)
        decorated: click.Command = main.command(cls=_Command, examples=examples)(with_home)
        return decorated

    return decorate


def json_command(
    examples: str, *, interrupted: str = "stopped"
) -> Callable[[Callable[..., tuple[str, Any]]], click.Command]:
    """A subcommand with --home and --json.

    Its function returns (text, value): the text is printed, with --json the value. A value whose `failed` is true ends
    the command with status 1. With --json an error is printed as JSON too.

    Args:
        examples: command lines for the help, one per line.
        interrupted: message after Ctrl-C or SIGTERM.
    """

    def decorate(function: Callable[..., tuple[str, Any]]) -> click.Command:
        @functools.wraps(function)
        def run(as_json: bool, **options: Any) -> None:
            try:
                # With --json, standard output holds the JSON only: what libraries print goes to standard error.
                with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
                    text, value = function(**options)
            except MultitronError as error:
                if as_json:
                    parts = {name: getattr(error, name) for name in ("what", "where", "found", "hint")}
                    click.echo(redacted(json.dumps({"error": parts}, indent=2, default=str)))
                raise
            except KeyboardInterrupt:
                click.echo(f"\n{interrupted}", err=True)
                sys.exit(130)
            click.echo(json.dumps(value, indent=2, default=str) if as_json else text)
            if isinstance(value, dict) and value.get("failed"):
                sys.exit(1)

        return command(examples)(click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")(run))

    return decorate


MODEL = click.option("--model", help="Model version or folder; default: the newest model.")
OBJECTIVE = click.option(
    "--objective",
    default="order_density",
    show_default=True,
    help="Metric that the operating point maximises: order_density, order_recall_20, recall_x_density or order_loss "
    "(minimised).",
)
ALLOWED = click.option(
    "--max-click-recall-loss",
    type=float,
    default=0.02,
    show_default=True,
    help="Click recall@20 that the operating point may lose against the best point.",
)


@json_command(
    """
    multitron demo
    multitron demo --home var/mine --data ~/raw --format diginetica --split-days 2
    """,
    interrupted=CONTINUES,
)
@click.option("--data", type=click.Path(path_type=Path), help="Folder of raw files; without it a shop is simulated.")
@click.option("--format", help="Format of the raw files: diginetica, yoochoose, otto, table, or a custom format.")
@click.option("--split-days", type=int, help="Days of the test set; default: as the format defines them.")
@click.option("--preset", help="Training preset: demo, diginetica, yoochoose, otto, official.")
@click.option("--sessions", default=20_000, show_default=True, help="Sessions of the simulated shop.")
@click.option("--items", default=2_000, show_default=True, help="Items of the simulated shop.")
def demo(home: Path | None, sessions: int, items: int, **options: Any) -> tuple[str, Any]:
    """Run the pipeline once: raw events to recommendation tables.

    Without --data a shop is simulated. Repeating a finished demo changes nothing; an interrupted demo continues where
    it stopped.
    """
    from orchestration.cli import commands

    return commands.demo(home, size=(sessions, items), **options)


@command(
    """
    multitron ui
    multitron ui --home var/mine --port 3001
    """
)
@click.option("--port", default=3000, show_default=True, help="Port of the UI on 127.0.0.1.")
def ui(home: Path | None, port: int) -> None:
    """Start the Dagster UI and daemon, with a Triton server.

    Runs in the foreground until Ctrl-C. The UI listens on this machine only.
    """
    from orchestration.cli.ui import run_ui
    from orchestration.shop.home import load_shop

    with contextlib.suppress(KeyboardInterrupt):  # the normal way to end it
        sys.exit(run_ui(load_shop(home), port=port))


@json_command(
    """
    multitron train
    multitron train --preset diginetica --set epochs=3 --set learning_rate=0.002
    """,
    interrupted=CONTINUES,
)
@click.option("--preset", help="Training preset; default: as shop.toml defines it.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="Override a setting of [model.training]; repeatable. docs/reference.md lists the names.",
)
@click.option("--keep-sessions", is_flag=True, help="Train on the prepared sessions; do not read the event log.")
def train(home: Path | None, preset: str | None, settings: tuple[str, ...], keep_sessions: bool) -> tuple[str, Any]:
    """Prepare training sessions and train a model.

    Reads the event log; the trained model becomes the newest one. An interrupted training continues where it stopped;
    a finished one is not repeated. Prints one row per epoch: training losses, and recall where sessions are held out.
    Measure the model with `multitron front` and compare it with `multitron baselines`.
    """
    from orchestration.cli import commands

    return commands.train(home, preset=preset, settings=settings, keep_sessions=keep_sessions)


@json_command(
    """
    multitron front
    multitron front --points 11 --objective order_recall_20 --max-click-recall-loss 0.01 --record newsletter
    multitron front --json | jq '.rows[] | [.pi_order, .click_recall_20]'
    """
)
@MODEL
@click.option("--points", type=int, show_default="front_points of [model]", help="Number of preferences to measure.")
@OBJECTIVE
@ALLOWED
@click.option("--record", metavar="NAME", help="Record the operating point in the model folder as NAME.")
def front(home: Path | None, **options: Any) -> tuple[str, Any]:
    """Measure the front of a model: its metrics at each preference.

    Prints losses and exact metrics per preference, how monotonically they follow it, both hypervolumes with confidence
    intervals, and the operating point: the best pi under --max-click-recall-loss. As pi_order rises, the order loss
    should fall and the click loss rise. Do not choose a dominated point: another point is at least as good in both
    losses. Table and plots are written to the model folder, the points to the Delta table `fronts`.
    """
    from orchestration.cli import commands

    return commands.front(home, **options)


@json_command(
    """
    multitron report
    multitron report --out ~/front.html --objective order_recall_20
    """
)
@MODEL
@click.option("--out", type=click.Path(path_type=Path), help="Output file; default: report.html in the model folder.")
@OBJECTIVE
@ALLOWED
def report(home: Path | None, **options: Any) -> tuple[str, Any]:
    """Write an HTML report about a model.

    One file: the front compared with the paper's, metrics, baselines, example sessions, data and settings.
    """
    from orchestration.cli import commands

    return commands.report(home, **options)


@json_command(
    """
    multitron baselines
    multitron baselines --json
    """
)
def baselines(home: Path | None) -> tuple[str, Any]:
    """Measure the baselines that a model should beat.

    Popularity, co-visitation and session neighbours, on the test steps that the model is measured on. A model whose
    click recall@20 stays below the baseline gate_baseline of [model] is not deployed.
    """
    from orchestration.cli import commands

    return commands.baselines(home)


@json_command(
    """
    multitron deploy
    multitron deploy --model 717393f32ab1
    """
)
@MODEL
def deploy(home: Path | None, model: str | None) -> tuple[str, Any]:
    """Deploy a model to Triton, behind quality gates.

    The model is loaded next to the live one, scores the golden sessions, and is compared with a baseline and
    with the live model. It goes live only if every gate passes; otherwise the live model stays.
    """
    from orchestration.cli import commands

    return commands.deploy(home, model=model)


@json_command(
    """
    multitron rollback
    multitron rollback --version 3
    """
)
@click.option("--version", type=int, help="A kept version; default: the version that was live before.")
def rollback(home: Path | None, version: int | None) -> tuple[str, Any]:
    """Make an earlier model version live again.

    Released lists stay as they are; each row names the model version that made it. `multitron score` replaces the lists
    of a night.
    """
    from orchestration.cli import commands

    return commands.rollback(home, version=version)


@json_command(
    """
    multitron score
    multitron score --date 2026-01-08 --pi 0.25 --pi 0.50
    multitron score --date 2026-01-05 --until 2026-01-08
    """
)
@click.option("--date", help="Run date of the night, as 2026-01-08; default: the last day with events.")
@click.option("--until", help="Last run date; scores every night from --date to this one.")
@click.option("--pi", "preferences", multiple=True, help="A preference; repeatable. Default: all of the shop.")
def score(home: Path | None, **options: Any) -> tuple[str, Any]:
    """Score nights: replace, check and release their tables.

    Each (night, pi) is a run of the job `scoring`, as in the UI. Lists that fail a check are not released. Sessions of
    a night are prepared if they are missing. Ends with status 1 if a run failed; the other runs are complete.
    """
    from orchestration.cli import commands

    return commands.score(home, **options)


@json_command(
    """
    multitron read --channel newsletter
    multitron read --pi 0.50 --date 2026-01-08 --key 19670
    multitron read --pi 0.50 --out lists.parquet
    """
)
@click.option("--channel", help="Read the lists of a channel of shop.toml ...")
@click.option("--pi", help="... or of a preference.")
@click.option(
    "--date", default="latest", show_default=True, help="Run date of the night, or `latest`: the last released."
)
@click.option(
    "--table",
    default="recommendations",
    show_default=True,
    help="recommendations, item_recommendations or fallback_recommendations.",
)
@click.option("--key", "keys", multiple=True, help="Read only the list of this session (or item); repeatable.")
@click.option("--limit", default=20, show_default=True, help="Maximum number of rows to print; --out writes all rows.")
@click.option("--out", type=click.Path(path_type=Path), help="Write a file instead: .parquet, .csv or .ndjson.")
def read(home: Path | None, **options: Any) -> tuple[str, Any]:
    """Read released recommendations, as downstream teams do.

    Rank 1 is the best item of a list; compare scores within a list only. The default is the latest night that passed
    its checks. docs/tables.md describes every column and how to read the tables with Python and SQL.
    """
    from orchestration.cli import read

    return read.read(home, **options)


@json_command(
    """
    multitron status
    multitron status --nights 1 --check || echo "check the night"
    """
)
@click.option("--nights", default=7, show_default=True, help="Number of nights to show, newest first.")
@click.option(
    "--check", is_flag=True, help="End with status 1 if a night is late or failed, or if no night starts automatically."
)
def status(home: Path | None, nights: int, check: bool) -> tuple[str, Any]:
    """Show the state of the last nights.

    Each pi is published, running, waiting (for files or an earlier step), late (after the deadline) or failed, with the
    reason and the re-run command. Also shows whether nights start automatically, and if not, the command that starts
    them.
    """
    from orchestration.cli import commands

    return commands.status(home, nights=nights, check=check)
