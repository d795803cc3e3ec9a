"""The faults: each disturbs a night of a new copy of the shop, does what an operator must do, and completes the night.

`chaos.shop.digest` is compared afterwards. The file exceeds 400 lines because it is a list of short functions, one per
fault.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.torch import load_file, save_file

from chaos import shop as small
from chaos.shop import disturbed_day, finish, night, start
from multitron_core.errors import MultitronError
from multitron_core.sessions.encoded import EncodedSessions
from multitron_core.sessions.prepare import PreparedSessions
from orchestration.runtime.partitions import night_key
from orchestration.shop import models
from orchestration.shop.home import URL_VARIABLE, Shop, load_shop
from orchestration.shop.toml import write_shop
from serving.deployment import deploy
from serving.in_process import InProcessServer
from serving.repository import ModelRepository
from serving.server import TritonServer


class NotPossibleError(Exception):
    """The fault cannot be injected on this machine."""


@dataclass(frozen=True)
class Fault:
    """A fault.

    Args:
        name: of the fault.
        inject: injects it into the night of a home; returns how often, and what was reported to the operator.
    """

    name: str
    inject: Callable[[Path, random.Random], tuple[int, str]]


def _report(errors: str) -> str:
    """The first line of the errors of a night."""
    return errors.splitlines()[0] if errors else "nothing: retries succeeded"


def _complete_night(home: Path, *arguments: str, **env: str) -> None:
    status, errors = night(home, *arguments, **env)
    if status:
        raise AssertionError(f"the night after the fault failed: {errors}")


def scoring_killed(home: Path, chance: random.Random) -> tuple[int, str]:
    """kill -9 of the scoring run, three times, at random times."""
    kills = 0
    for _ in range(3):
        process = start(home, *(["--after-kill"] if kills else []))
        time.sleep(chance.uniform(3, 14))
        if process.poll() is None:
            process.kill()
            kills += 1
        process.communicate()
    _complete_night(home, "--after-kill")
    return kills, "a run shown as started; the next start marked it as failed"


def training_killed(home: Path, chance: random.Random) -> tuple[int, str]:
    """kill -9 of training, twice; the resulting model must be the undisturbed one."""
    shop = load_shop(home)
    version = models.model_version(models.newest(shop))
    for folder in shop.models.iterdir():
        shutil.rmtree(folder) if folder.is_dir() else folder.unlink()
    kills = 0
    for _ in range(2):
        process = start(home, "--job", "training", "--after-kill")
        time.sleep(chance.uniform(6, 14))
        if process.poll() is None:
            process.kill()
            kills += 1
        process.communicate()
    night(home, "--job", "training", "--after-kill")  # the gates may refuse it; only the weights matter
    found = models.model_version(models.newest(shop))
    assert found == version, f"another model: {found}, not {version}"
    _complete_night(home)
    return kills, "a run shown as started; the next one continued from the last checkpoint"


@contextlib.contextmanager
def _server(home: Path, port: int = 0) -> Iterator[TritonServer]:
    try:
        server = TritonServer(load_shop(home).triton_repository, grpc_port=port).__enter__()
    except MultitronError as error:
        raise NotPossibleError(str(error).splitlines()[0]) from error
    try:
        yield server
    finally:
        if server.process_id is not None:
            os.kill(server.process_id, signal.SIGCONT)
        server.stop()


def _over_triton(home: Path, **settings: float) -> None:
    shop = load_shop(home)
    triton = shop.settings.triton.model_copy(update={"scorer": "triton", **settings})
    write_shop(home, shop.settings.model_copy(update={"triton": triton}))


def _children(process_id: int) -> list[int]:
    children = Path(f"/proc/{process_id}/task/{process_id}/children")
    return [int(child) for child in children.read_text().split()] if children.exists() else []


def triton_killed(home: Path, chance: random.Random) -> tuple[int, str]:
    """kill -9 of the Triton server during scoring; a new one starts on its port seconds later."""
    _over_triton(home)
    with _server(home) as first:
        url, port = first.url, int(first.url.rpartition(":")[2])
        process = start(home, **{URL_VARIABLE: url})
        time.sleep(chance.uniform(5, 12))
        assert first.process_id is not None
        children = _children(first.process_id)
        os.kill(first.process_id, signal.SIGKILL)
        for child in children:  # stub processes of the python backend survive a killed server
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        time.sleep(2)
        with _server(home, port):
            status, errors = finish(process)
            if status:
                _complete_night(home, **{URL_VARIABLE: url})
    return 1, _report(errors)


def triton_slow(home: Path, chance: random.Random) -> tuple[int, str]:
    """A server that is stopped (SIGSTOP) for some seconds during scoring."""
    _over_triton(home)
    with _server(home) as server:
        process = start(home, **{URL_VARIABLE: server.url})
        time.sleep(chance.uniform(5, 9))
        assert server.process_id is not None
        stopped = [server.process_id, *_children(server.process_id)]
        for each in stopped:
            os.kill(each, signal.SIGSTOP)
        time.sleep(8)
        for each in stopped:
            os.kill(each, signal.SIGCONT)
        status, errors = finish(process)
        if status:
            _complete_night(home, **{URL_VARIABLE: server.url})
    return 1, _report(errors)


def triton_silent(home: Path, chance: random.Random) -> tuple[int, str]:
    """A server that accepts connections and never answers; one preference, one attempt."""
    _over_triton(home, timeout_seconds=2.0, ready_seconds=10.0)
    settings = load_shop(home).settings
    one = settings.scoring.model_copy(update={"pi": settings.preferences[:1]})
    write_shop(home, settings.model_copy(update={"scoring": one}))
    with _server(home) as server:
        assert server.process_id is not None
        os.kill(server.process_id, signal.SIGSTOP)
        # The client must not wait forever: it fails with a reason.
        status, errors = night(home, "--retries", "0", **{URL_VARIABLE: server.url})
        assert status, "the fault was not detected"
        assert set(small.digest(home).values()) == {"none"}
        os.kill(server.process_id, signal.SIGCONT)
        write_shop(home, settings)
        _complete_night(home, **{URL_VARIABLE: server.url})
    return 1, _report(errors)


@contextlib.contextmanager
def _small_disk(folder: Path, *, free_kb: int) -> Iterator[Path]:
    """Move `folder` to a file system with `free_kb` kB of free space; yields the file that fills the rest."""
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) // 1024
    aside = folder.with_name(folder.name + ".aside")
    folder.rename(aside)
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={4 * size + 16_384}k", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        folder.rmdir()
        aside.rename(folder)
        raise NotPossibleError(f"no file system can be mounted: {mounted.stderr.strip()}")
    try:
        shutil.copytree(aside, folder, dirs_exist_ok=True, symlinks=True)
        ballast = folder / "ballast"
        free = shutil.disk_usage(folder).free
        ballast.write_bytes(bytes(max(0, free - free_kb * 1024)))
        yield ballast
        ballast.unlink(missing_ok=True)
        shutil.rmtree(aside)
        shutil.copytree(folder, aside, symlinks=True)
    finally:
        subprocess.run(["umount", str(folder)], check=True)
        folder.rmdir()
        aside.rename(folder)


def disk_full_under_the_lake(home: Path, chance: random.Random) -> tuple[int, str]:
    """No disk space for the tables during a night; space is freed afterwards."""
    with _small_disk(home / "lake", free_kb=chance.randint(8, 120)) as ballast:
        status, errors = night(home)
        assert status, "the fault was not detected"
        assert "disk is full" in errors, errors
        ballast.unlink()
        _complete_night(home)
    return 1, _report(errors)


def disk_full_under_the_models(home: Path, chance: random.Random) -> tuple[int, str]:
    """No disk space for the models during training; space is freed afterwards."""
    shop = load_shop(home)
    version = models.model_version(models.newest(shop))
    for folder in shop.models.iterdir():
        shutil.rmtree(folder) if folder.is_dir() else folder.unlink()
    with _small_disk(shop.models, free_kb=chance.randint(0, 30)) as ballast:
        status, errors = night(home, "--job", "training")
        assert status, "the fault was not detected"
        assert "disk is full" in errors, errors
        ballast.unlink()
        night(home, "--job", "training")
        assert models.model_version(models.newest(shop)) == version
    _complete_night(home)
    return 1, _report(errors)


def bit_flipped(home: Path, chance: random.Random) -> tuple[int, str]:
    """One flipped bit in the deployed weights; the model is deployed again."""
    shop = load_shop(home)
    repository = ModelRepository(shop.triton_repository)
    folder = repository.version_folder(max(repository.versions()))
    weights = max((path for path in folder.iterdir() if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(weights.read_bytes())
    content[chance.randrange(len(content) // 2, len(content))] ^= 1 << chance.randrange(8)
    weights.write_bytes(bytes(content))
    status, errors = night(home)
    assert status, "the fault was not detected"
    shutil.rmtree(repository.folder)
    _deploy(shop, models.newest(shop))
    _complete_night(home)
    return 1, _report(errors)


def _deploy(shop: Shop, folder: Path, golden: EncodedSessions | None = None) -> None:
    """Deploy a model folder without the gates that compare it with baselines."""
    with InProcessServer(shop.triton_repository) as server:
        deploy(
            folder,
            server,
            golden_sessions=golden,
            golden_pi=shop.settings.preferences,
            golden_k=shop.settings.scoring.k,
        )


def log_truncated(home: Path, chance: random.Random) -> tuple[int, str]:
    """A truncated last entry of a Delta log; it is moved away, as in the runbook, and the night is scored again."""
    _complete_night(home)
    log = home / "lake" / "recommendations" / "_delta_log"
    entry = max(log.glob("*.json"))
    content = entry.read_bytes()
    entry.write_bytes(content[: chance.randrange(len(content) // 4, 3 * len(content) // 4)])
    status, errors = night(home)
    assert status, "the fault was not detected"
    entry.rename(home / entry.name)
    _complete_night(home)
    return 1, _report(errors)


def wrong_vocabulary(home: Path, chance: random.Random) -> tuple[int, str]:
    """Prepared sessions with the hash of another vocabulary; they are prepared again."""
    _complete_night(home)
    before, shop = small.digest(home), load_shop(home)
    day, pi = disturbed_day(shop), shop.settings.preferences[-1]
    description = shop.scoring_sessions(day) / "encoded.json"
    description.write_text(json.dumps({"vocabulary_hash": f"{chance.getrandbits(64):016x}"}))
    made = subprocess.run(
        [
            str(Path(sys.executable).with_name("dagster")),
            *("asset", "materialize", "-m", "orchestration.definitions", "--select", "recommendations,published"),
            *("--partition", str(night_key(day, pi))),
        ],
        cwd=small.ROOT,
        env=small.environment(MULTITRON_HOME=str(home), DAGSTER_HOME=str(home / "dagster")),
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode, "the fault was not detected"
    assert small.digest(home) == before
    _complete_night(home)
    lines = [line for line in made.stderr.splitlines() if "vocabular" in line and "hint" in line]
    return 1, lines[0].partition("Failure: ")[2] or lines[0]


def scores_that_are_nan(home: Path, chance: random.Random) -> tuple[int, str]:
    """A trained model with a NaN weight: the deployment refuses it, the live model stays."""
    shop = load_shop(home)
    good = models.newest(shop)
    bad = good.with_name("nan")
    shutil.copytree(good, bad)
    weights = load_file(bad / "weights.safetensors")
    name = chance.choice(sorted(name for name in weights if weights[name].is_floating_point()))
    weights[name].view(-1)[chance.randrange(weights[name].numel())] = np.nan
    save_file(weights, bad / "weights.safetensors")
    try:
        _deploy(shop, bad)
    except MultitronError as error:
        errors = str(error)
    else:
        raise AssertionError(f"a model whose {name} is not finite was deployed")
    shutil.rmtree(bad)
    _complete_night(home)
    return 1, _report(errors)


LONG_SESSION = 8
"""Clicks of a session from which the damaged model returns NaN."""


def scores_that_turn_nan(home: Path, chance: random.Random) -> tuple[int, str]:
    """A live model that scores all golden sessions and returns NaN for long ones: nothing is released."""
    shop = load_shop(home)
    good = models.newest(shop)
    bad = good.with_name("nan")
    shutil.copytree(good, bad)
    weights = load_file(bad / "weights.safetensors")
    weights["position_embedding.weight"][LONG_SESSION:] = np.nan
    save_file(weights, bad / "weights.safetensors")
    held_out = PreparedSessions.load(shop.training_sessions).test
    short = np.flatnonzero(np.diff(held_out.offsets) < LONG_SESSION)
    _deploy(shop, bad, held_out.select(short))
    status, errors = night(home)
    assert status, "the fault was not detected"
    assert set(small.digest(home).values()) == {"none"}, "lists of NaN scores were released"
    shutil.rmtree(bad)
    _deploy(shop, good)
    _complete_night(home)
    return 1, _report(errors)


def two_nights_at_once(home: Path, chance: random.Random) -> tuple[int, str]:
    """The same night started twice, up to 3 s apart."""
    first = start(home)
    time.sleep(chance.uniform(0, 3))
    second = start(home)
    results = [finish(first), finish(second)]
    failures = [errors for status, errors in results if status]
    assert len(failures) < 2, failures
    return 1, _report("\n".join(failures)) if failures else "nothing: the later commit replaced equal rows"


ZONES = ("Europe/Berlin", "STD0DST,M10.5.0/2,M3.5.0/3")
"""The last Sunday of March has no 2:30 in the first zone, and 2:30 twice in the second, of the southern hemisphere."""


def clock_change(home: Path, chance: random.Random) -> tuple[int, str]:
    """The time zone of the machine skips an hour within the day; another zone repeats one."""
    for zone in ZONES:
        _complete_night(home, TZ=zone)
    return len(ZONES), "nothing: days and schedules are UTC"


def daemon_killed(home: Path, chance: random.Random) -> tuple[int, str]:
    """kill -9 of the Dagster daemon during a night; it is started again."""
    from chaos.daemon import Daemon

    with Daemon(home, sensors=["nights"]) as daemon:
        time.sleep(chance.uniform(15, 40))
        daemon.kill()
        time.sleep(2)
        daemon.start()
        daemon.wait_until_complete(disturbed_day(load_shop(home)), timeout=300)
    return 1, "the daemon is not running (`status`); a started run continues without it"


FAULTS = (
    Fault("kill -9 of the scoring run", scoring_killed),
    Fault("kill -9 of training", training_killed),
    Fault("kill -9 of the Triton server", triton_killed),
    Fault("kill -9 of the Dagster daemon", daemon_killed),
    Fault("a full disk under the lake", disk_full_under_the_lake),
    Fault("a full disk under the models", disk_full_under_the_models),
    Fault("a flipped bit in a model file", bit_flipped),
    Fault("a truncated Delta log entry", log_truncated),
    Fault("a wrong vocabulary", wrong_vocabulary),
    Fault("scores that are NaN", scores_that_are_nan),
    Fault("scores that turn NaN in the night", scores_that_turn_nan),
    Fault("a server that answers slowly", triton_slow),
    Fault("a server that does not answer", triton_silent),
    Fault("two nights started at once", two_nights_at_once),
    Fault("the hour of a clock change", clock_change),
)
