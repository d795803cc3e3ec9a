"""Time ingestion, from raw files to encoded sessions on disk, optionally against the official preparation.

    python benchmarks/ingestion.py --official <checkout of otto-de/MultiTRON> --sizes 1 2 4 --json ingestion.json

The raw files are simulated: Yoochoose's format with 4 million clicks, and OTTO's format with the sizes in `--sizes`, in
gigabytes (whole numbers; gigabytes after the first repeat it with other session numbers). Each preparation runs in its
own process, timed from start to end with imports and the writing of its result. Its peak memory is reported by the
operating system. The official code runs on the same files with TZ=UTC, alternating with this project's for `--rounds`
rounds; ratios are taken within each pair of runs. The results are then compared session by session: sessions and their
order, items and their index order, labels, and counts. Processor seconds are summed over all cores: the official code
uses one, this project two.

The two do different work. The official filter for OTTO only drops the carts and rewrites the text. This project also
checks every line, labels the clicks and encodes the sessions.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

# No heavy imports at the top: a child process starts as a copy of this one, so its peak memory would include them.

ROOT = Path(__file__).resolve().parents[1]
UTC = {"TZ": "UTC"}  # the official split depends on the time zone
OFFICIAL_NAMES = {
    "yoochoose": ("yoochoose-clicks.dat", "yoochoose-buys.dat"),
    "otto": ("otto-recsys-train.jsonl", "otto-recsys-test.jsonl"),
}
TIMES = ("seconds", "cpu_seconds")


class Measured(NamedTuple):
    """Time and memory of one preparation."""

    seconds: float
    cpu_seconds: float  # over all cores; less affected by other programs than `seconds`
    peak_mb: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--formats", nargs="+", choices=sorted(OFFICIAL_NAMES), default=["yoochoose", "otto"])
    parser.add_argument("--clicks", type=float, default=4e6, help="clicks of the Yoochoose files")
    parser.add_argument("--sizes", nargs="+", type=float, default=[1.0], metavar="GB", help="sizes of the OTTO files")
    parser.add_argument(
        "--official", type=Path, metavar="CHECKOUT", help="checkout of otto-de/MultiTRON to compare with"
    )
    parser.add_argument(
        "--data", type=Path, help="folder that keeps the raw files for later runs (default: a temporary folder)"
    )
    parser.add_argument("--rounds", type=int, default=1, help="pairs of runs, alternating; medians are printed")
    parser.add_argument(
        "--prefix", default="", help="prefix of each measured command, for example 'chrt -f 5' on a busy machine"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    parser.add_argument("--small", action="store_true", help="six seconds: 0.2 million clicks, 0.05 GB")
    options = parser.parse_args()
    if options.small:
        options.clicks, options.sizes = 2e5, [0.05]
    if options.official and not (options.official / "src" / "preprocessing.py").is_file():
        parser.error(f"--official {options.official}: has no src/preprocessing.py; check out otto-de/MultiTRON")

    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="ingestion-") as temporary:
        data = options.data or Path(temporary)
        data.mkdir(parents=True, exist_ok=True)
        for format in options.formats:
            for size in options.sizes if format == "otto" else [options.clicks / 1e6]:
                rows.append(measure(format, size, data, Path(temporary), options))
    print_table(rows)
    lines = {name: straight_line([row for row in rows if row["format"] == "otto"], name) for name in TIMES}
    for name, line in lines.items():
        if line:
            print(
                f"\nOTTO, {name} against size: {line['seconds_per_gb']:.2f} per GB, "
                f"{line['seconds_at_zero']:.2f} at 0, "
                f"largest distance from the line {line['largest_residual_share']:.1%}"
            )
    if options.json:
        options.json.write_text(json.dumps({"rows": rows, "otto_lines": lines}, indent=2) + "\n")
    if any(row.get("different") for row in rows):
        sys.exit("the two preparations differ, see above")


def measure(format: str, size: float, data: Path, temporary: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Simulate one data set, prepare it, and compare with the official preparation if given."""
    raw = data / f"{format}-{size:g}"
    progress(f"{format} {size:g}: raw files in {raw}")
    counts = raw_files(format, size, raw)
    files = [raw / name for name in OFFICIAL_NAMES[format]]
    for file in files:  # so that both preparations read from the page cache, as far as the files fit
        warm(file)
    gigabytes = sum(file.stat().st_size for file in files) / 1e9
    events = counts["clicks"] + counts["carts"] + counts["orders"]
    row: dict[str, Any] = {"format": format, "gb": gigabytes, "clicks": counts["clicks"], "events": events}
    commands = {"ours": preparation(format, raw, temporary / "ours")}
    if options.official:
        commands["official"] = official_preparation(format, files, temporary / "official", options.official)
    row |= {f"{who}_rounds": [] for who in commands}
    for number in range(options.rounds):  # alternating, so that other load affects both
        for who, command in commands.items():
            progress(f"{format} {size:g}: {who}, {gigabytes:.2f} GB, {events:,} events, round {number + 1}")
            row[f"{who}_rounds"].append(timed(options.prefix.split() + command[0], *command[1:])._asdict())
    for who in commands:
        row[who] = {name: statistics.median(run[name] for run in row[f"{who}_rounds"]) for name in Measured._fields}
    if options.official:
        pairs = list(zip(row["official_rounds"], row["ours_rounds"], strict=True))
        for name in TIMES:
            row[f"times_faster_{name}"] = statistics.median(theirs[name] / ours[name] for theirs, ours in pairs)
        progress(f"{format} {size:g}: comparing the results")
        row["different"] = in_a_process(differences, format, raw, temporary / "ours", temporary / "official" / format)
        for difference in row["different"]:
            print(f"DIFFERENT {format} {size:g}: {difference}")
        shutil.rmtree(temporary / "official")
    for folder in temporary.glob("ours*"):
        folder.unlink() if folder.is_symlink() else shutil.rmtree(folder)
    return row


Command = tuple[list[str], Path, dict[str, str]]
"""Arguments, working directory, additions to the environment."""


def preparation(format: str, raw: Path, out: Path) -> Command:
    """Command of this project's preparation."""
    arguments = ["-m", "multitron_core.sessions", "--format", format, "--data", str(raw), "--out", str(out)]
    return [sys.executable, *arguments], ROOT, {}


def official_preparation(format: str, files: list[Path], out: Path, checkout: Path) -> Command:
    """Command of the official preparation, which writes to the folder that it reads."""
    (out / format).mkdir(parents=True)
    for file in files:
        (out / format / file.name).symlink_to(file.resolve())
    return [sys.executable, "-m", "src.preprocessing", "--dataset", format, "--data_dir", str(out)], checkout, UTC


def raw_files(format: str, size: float, folder: Path) -> dict[str, int]:
    """Write raw files and return their counts; existing files are used as they are.

    Files of several gigabytes repeat one gigabyte with other session numbers.
    """
    counts_file = folder.parent / f"{folder.name}.json"
    if counts_file.exists():
        return json.loads(counts_file.read_text())
    copies = round(size) if format == "otto" and size > 1 else 1
    if copies == 1:
        counts = in_a_process(simulate_raw, format, size, folder)
    else:
        once = folder.with_name(f"{format}-1")
        counts = raw_files(format, 1, once)
        for name in OFFICIAL_NAMES[format]:
            repeat_sessions(once / name, folder / name, copies, counts["sessions"])
        counts = {what: count * copies for what, count in counts.items()}
    counts_file.write_text(json.dumps(counts))
    return counts


def repeat_sessions(source: Path, target: Path, copies: int, sessions: int) -> None:
    """Repeat the lines of an OTTO file; session numbers of the n-th copy are n * `sessions` higher."""
    target.parent.mkdir(exist_ok=True)
    begin = b'{"session":'
    with target.open("wb") as written:
        for copy in range(copies):
            with source.open("rb") as lines:
                for line in lines:
                    number, rest = line[len(begin) :].split(b",", 1)
                    written.write(b"%b%d,%b" % (begin, int(number) + copy * sessions, rest))


def simulate_raw(format: str, size: float, folder: Path) -> dict[str, int]:
    """Simulate raw files; `size` is in million clicks for Yoochoose, in gigabytes for OTTO."""
    from multitron_core.simulator.ground_truth import Habits
    from multitron_core.simulator.simulation import simulate

    if format == "yoochoose":  # sessions of 5 clicks, less the clicks after the 40th
        done = simulate(folder, format=format, sessions=round(size * 200_800), items=40_000, days=30)
    else:  # OTTO's sessions are longer: about 17 events each
        habits = Habits(mean_clicks=15.0, max_clicks=200)
        done = simulate(folder, format=format, sessions=round(size * 1_190_000), items=100_000, days=30, habits=habits)
    return done.counts


def timed(command: list[str], cwd: Path, environment: dict[str, str]) -> Measured:
    """Run a command and return its wall time, processor time and peak resident memory."""
    with tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=cwd, env={**os.environ, **environment}, stdout=output, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            sys.exit(f"{' '.join(command)} failed:\n{output.read().decode(errors='replace')[-4000:]}")
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, kibibytes elsewhere
    return Measured(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit / 1e6)


def in_a_process(function: Any, *arguments: Any) -> Any:
    """Call a function in a new interpreter, so that this process stays small (see the comment on imports)."""
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def warm(file: Path) -> None:
    """Read a file once, so that it is in the page cache."""
    with file.open("rb") as handle:
        while handle.read(1 << 24):
            pass


def differences(format: str, raw: Path, ours: Path, theirs: Path) -> list[str]:
    """Differences between the two preparations; empty if they agree."""
    import numpy as np

    from multitron_core.sessions.prepare import PreparedSessions

    prepared = PreparedSessions.load(ours)
    stats = json.loads((theirs / f"{format}_stats.json").read_text())
    found: list[str] = []
    known: Any = np.zeros(0, dtype=np.int64)  # items of the official train sessions
    for part, sessions in (("train", prepared.train), ("test", prepared.test)):
        if format == "otto":  # the official filter keeps the order of the file, by number; ours is by time
            sessions = sessions.select(np.argsort(sessions.session_ids.to_numpy().astype(np.int64)))
        start, orders = 0, 0
        # The official OTTO filter keeps every session, and test items that train does not have.
        only = known if format == "otto" and part == "test" else None
        for chunk in official_chunks(theirs / f"{format}_{part}.jsonl", only):
            if format == "otto":
                chunk = chunk.usable()
            if part == "train":
                known = np.union1d(known, chunk.items)
            end = start + len(chunk.session_ids)
            offsets = np.asarray(sessions.offsets[start : end + 1])
            items = np.asarray(sessions.items[offsets[0] : offsets[-1]])
            if format == "otto":
                items = prepared.vocabulary.decode(items).to_numpy() + 1  # the official filter adds 1 to raw ids
            where = f"{part}, sessions {start:,} to {end:,}"
            found += same(f"{where}: ids", sessions.session_ids[start:end].to_numpy(), chunk.session_ids)
            found += same(f"{where}: clicks per session", np.diff(offsets), chunk.lengths)
            found += same(f"{where}: items", items, chunk.items)
            found += same(f"{where}: labels", sessions.ordered[offsets[0] : offsets[-1]], chunk.ordered)
            start, orders = end, orders + int(chunk.orders.sum())
            if len(found) > 8:
                return found
        figures = {"sessions": len(sessions), "clicks": len(sessions.items), "orders": orders}
        found += same(f"{part} sessions", len(sessions), start)
        found += same(f"{part} statistics", prepared.statistics[part], figures)
        if format != "otto":  # the official counts for OTTO include sessions of one click
            names = {"sessions": "sessions", "clicks": "click_events", "orders": "order_events"}
            found += same(f"{part} figures", figures, {name: stats[part][f"num_{of}"] for name, of in names.items()})
    found += same("items", len(prepared.vocabulary), len(known) if format == "otto" else stats["num_items"])
    if format == "yoochoose":
        found += items_come_from_the_raw_file(raw / "yoochoose-clicks.dat", prepared)
    return found


def same(what: str, ours: Any, official: Any) -> list[str]:
    """Describe the first difference in one line; empty if there is none."""
    import numpy as np

    if isinstance(official, np.ndarray):
        if len(ours) != len(official):
            return [f"{what}: {len(ours):,} in ours, {len(official):,} in the official"]
        unequal = np.flatnonzero(np.asarray(ours) != official)
        if not len(unequal):
            return []
        return [f"{what}: {len(unequal):,} differ, first at {unequal[0]}: {ours[unequal[0]]}, {official[unequal[0]]}"]
    return [] if ours == official else [f"{what}: ours {ours}, official {official}"]


class Chunk(NamedTuple):
    """Some sessions of the official result as flat arrays; `ordered` applies the official label rule to its events."""

    session_ids: Any  # str [sessions]
    lengths: Any  # int64 [sessions], clicks
    orders: Any  # int64 [sessions]
    items: Any  # int64 [clicks]
    ordered: Any  # bool [clicks]

    def usable(self) -> Chunk:
        """The sessions of two clicks or more; shorter ones have no step."""
        import numpy as np

        long = self.lengths >= 2
        clicks = np.repeat(long, self.lengths)
        return Chunk(
            self.session_ids[long], self.lengths[long], self.orders[long], self.items[clicks], self.ordered[clicks]
        )


def official_chunks(path: Path, only: Any = None, lines: int = 200_000) -> Iterator[Chunk]:
    """Read the official result in chunks of `lines` sessions; with `only`, keep events on these items only."""
    import numpy as np
    import polars as pl

    event = pl.Struct({"aid": pl.Int64, "type": pl.String})
    with path.open("rb") as handle:
        while batch := b"".join(islice(handle, lines)):
            sessions = pl.read_ndjson(batch, schema={"session": pl.String, "events": pl.List(event)}).with_row_index(
                "row"
            )
            events = sessions.select("row", "events").explode("events").unnest("events").with_row_index("place")
            if only is not None:
                events = events.filter(pl.col("aid").is_in(pl.Series(only).implode()))
            clicks = events.filter(pl.col("type") == "clicks")
            orders = events.filter(pl.col("type") == "orders")
            last = orders.group_by("row", "aid").agg(pl.col("place").max().alias("last_order"))
            labelled = clicks.join(last, on=["row", "aid"], how="left", maintain_order="left")
            yield Chunk(
                sessions["session"].to_numpy(),
                np.bincount(clicks["row"], minlength=len(sessions)),
                np.bincount(orders["row"], minlength=len(sessions)),
                labelled["aid"].to_numpy(),
                labelled.select((pl.col("last_order") > pl.col("place")).fill_null(False)).to_series().to_numpy(),
            )


def items_come_from_the_raw_file(clicks: Path, prepared: Any) -> list[str]:
    """Check that the vocabulary decodes each session to items that it clicked in the raw file.

    The official result has no item ids, so the comparison of indices does not check the order of the vocabulary.
    """
    import polars as pl

    raw = pl.read_csv(clicks, has_header=False, new_columns=["session_id", "ts", "item_id", "category"])
    raw = raw.select(pl.col("session_id").cast(pl.String), pl.col("item_id").cast(prepared.vocabulary.item_ids.dtype))
    used = prepared.train.to_frame().select("session_id", "items").explode("items")
    used = used.with_columns(prepared.vocabulary.decode(used["items"])).unique(["session_id", "item_id"])
    not_clicked = used.join(raw, on=["session_id", "item_id"], how="anti")
    return (
        [f"{len(not_clicked):,} items were not clicked in their session: {not_clicked.head(1).to_dicts()}"]
        if len(not_clicked)
        else []
    )


def straight_line(rows: list[dict[str, Any]], name: str) -> dict[str, float] | None:
    """Least-squares line of this project's seconds (or processor seconds) over gigabytes; None below three sizes."""
    if len(rows) < 3:
        return None
    x, y = [row["gb"] for row in rows], [row["ours"][name] for row in rows]
    slope, intercept = statistics.linear_regression(x, y)
    residuals = [abs(slope * gb + intercept - seconds) / seconds for gb, seconds in zip(x, y, strict=True)]
    return {"seconds_per_gb": slope, "seconds_at_zero": intercept, "largest_residual_share": max(residuals)}


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print the medians over the rounds, and the median ratios within pairs of runs, as a Markdown table."""
    print(
        "\n| format | GB | events | preparation | s | CPU s | events/s | peak MB | faster | in CPU s | memory | same |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        for who in ("official", "ours"):
            if who not in row:
                continue
            seconds, cpu_seconds, peak = (row[who][name] for name in Measured._fields)
            cells = [row["format"], f"{row['gb']:.2f}", f"{row['events']:,}", who, f"{seconds:.1f}"]
            cells += [f"{cpu_seconds:.1f}", f"{row['events'] / seconds:,.0f}", f"{peak:,.0f}"]
            if who == "ours" and "official" in row:
                cells += [f"{row[f'times_faster_{name}']:.1f} x" for name in TIMES]
                cells += [f"{peak / row['official']['peak_mb']:.2f} x", "NO" if row["different"] else "yes"]
            else:
                cells += [""] * 4
            print("| " + " | ".join(cells) + " |")


def progress(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
