"""The faults: each disturbs the night of a fresh copy of the shop, mends what an operator has to mend, and lets it run
to its end. What is compared afterwards is `chaos.shop.digest`.
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
    """This machine does not let the fault be injected."""


@dataclass(frozen=True)
class Fault:
    """A fault by name; `inject` returns how often it was injected and what an operator saw."""

    name: str
    inject: Callable[[Path, random.Random], tuple[int, str]]


def _said(text: str) -> str:
    """The first line of what was said, or that nothing was."""
    return text.splitlines()[0] if text else "nothing: it was waited out"


def _ended_well(home: Path, *arguments: str, **env: str) -> None:
    status, said = night(home, *arguments, **env)
    if status:
        raise AssertionError(f"the night after the fault failed: {said}")


def scoring_killed(home: Path, chance: random.Random) -> tuple[int, str]:
    """kill -9 of the scoring run, three times, at random moments."""
    kills = 0
    for _ in range(3):
        process = start(home, *(["--after-kill"] if kills else []))
        time.sleep(chance.uniform(3, 14))
        if process.poll() is None:
            process.kill()
            kills += 1
        process.communicate()
    _ended_well(home, "--after-kill")
    return kills, "a run shown as started, ended as failed by the next start"


def training_killed(home: Path, chance: random.Random) -> tuple[int, str]:
    """kill -9 of training, twice; the model that comes of it must be the undisturbed one."""
    here = load_shop(home)
    version = models.model_version(models.newest(here))
    for folder in here.models.iterdir():
        shutil.rmtree(folder) if folder.is_dir() else folder.unlink()
    kills = 0
    for _ in range(2):
        process = start(home, "--job", "training", "--after-kill")
        time.sleep(chance.uniform(6, 14))
        if process.poll() is None:
            process.kill()
            kills += 1
        process.communicate()
    night(home, "--job", "training", "--after-kill")  # the gate may refuse it: only the weights are asked for here
    found = models.model_version(models.newest(here))
    assert found == version, f"another model: {found}, not {version}"
    _ended_well(home)
    return kills, "a run shown as started; the next one went on from the last checkpoint"


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
    here = load_shop(home)
    triton = here.settings.triton.model_copy(update={"scorer": "triton", **settings})
    write_shop(home, here.settings.model_copy(update={"triton": triton}))


def _children(process_id: int) -> list[int]:
    told = Path(f"/proc/{process_id}/task/{process_id}/children")
    return [int(child) for child in told.read_text().split()] if told.exists() else []


def triton_killed(home: Path, chance: random.Random) -> tuple[int, str]:
    """kill -9 of the Triton server while it scores; another comes up on its port some seconds later."""
    _over_triton(home)
    with _server(home) as first:
        url, port = first.url, int(first.url.rpartition(":")[2])
        process = start(home, **{URL_VARIABLE: url})
        time.sleep(chance.uniform(5, 12))
        assert first.process_id is not None
        children = _children(first.process_id)
        os.kill(first.process_id, signal.SIGKILL)
        for child in children:  # stubs of the python backend outlive a server that is killed
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        time.sleep(2)
        with _server(home, port):
            status, said = finish(process)
            if status:
                _ended_well(home, **{URL_VARIABLE: url})
    return 1, _said(said)


def triton_slow(home: Path, chance: random.Random) -> tuple[int, str]:
    """A server that stands still for some seconds while it is asked."""
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
        status, said = finish(process)
        if status:
            _ended_well(home, **{URL_VARIABLE: server.url})
    return 1, _said(said)


def triton_silent(home: Path, chance: random.Random) -> tuple[int, str]:
    """A server that takes connections and never answers, asked for one preference and in one attempt."""
    _over_triton(home, timeout_seconds=2.0, ready_seconds=10.0)
    settings = load_shop(home).settings
    one = settings.scoring.model_copy(update={"pi": settings.preferences[:1]})
    write_shop(home, settings.model_copy(update={"scoring": one}))
    with _server(home) as server:
        assert server.process_id is not None
        os.kill(server.process_id, signal.SIGSTOP)
        # No process of ours is kept waiting for good: it fails, with its reason.
        status, said = night(home, "--retries", "0", **{URL_VARIABLE: server.url})
        assert status, "it did not notice"
        assert set(small.digest(home).values()) == {"none"}
        os.kill(server.process_id, signal.SIGCONT)
        write_shop(home, settings)
        _ended_well(home, **{URL_VARIABLE: server.url})
    return 1, _said(said)


@contextlib.contextmanager
def _small_disk(folder: Path, *, free_kb: int) -> Iterator[Path]:
    """`folder` on a file system of its own that has so much space left; gives the file that fills the rest."""
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
        raise NotPossibleError(f"no file system can be mounted here: {mounted.stderr.strip()}")
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
    """No space under the tables while a night is written; then there is."""
    with _small_disk(home / "lake", free_kb=chance.randint(8, 120)) as ballast:
        status, said = night(home)
        assert status, "it did not notice"
        assert "disk is full" in said, said
        ballast.unlink()
        _ended_well(home)
    return 1, _said(said)


def disk_full_under_the_models(home: Path, chance: random.Random) -> tuple[int, str]:
    """No space under the model store while it is trained; then there is."""
    here = load_shop(home)
    version = models.model_version(models.newest(here))
    for folder in here.models.iterdir():
        shutil.rmtree(folder) if folder.is_dir() else folder.unlink()
    with _small_disk(here.models, free_kb=chance.randint(0, 30)) as ballast:
        status, said = night(home, "--job", "training")
        assert status, "it did not notice"
        assert "disk is full" in said, said
        ballast.unlink()
        night(home, "--job", "training")
        assert models.model_version(models.newest(here)) == version
    _ended_well(home)
    return 1, _said(said)


def bit_flipped(home: Path, chance: random.Random) -> tuple[int, str]:
    """One bit of the deployed weights is another; the model is deployed again."""
    here = load_shop(home)
    repository = ModelRepository(here.triton_repository)
    folder = repository.version_folder(max(repository.versions()))
    weights = max((path for path in folder.iterdir() if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(weights.read_bytes())
    content[chance.randrange(len(content) // 2, len(content))] ^= 1 << chance.randrange(8)
    weights.write_bytes(bytes(content))
    status, said = night(home)
    assert status, "it did not notice"
    shutil.rmtree(repository.folder)
    _deploy(here, models.newest(here))
    _ended_well(home)
    return 1, _said(said)


def _deploy(here: Shop, folder: Path, golden: EncodedSessions | None = None) -> None:
    """Deploy a model folder without the gates that compare it with simpler models."""
    with InProcessServer(here.triton_repository) as server:
        deploy(
            folder,
            server,
            golden_sessions=golden,
            golden_pi=here.settings.preferences,
            golden_k=here.settings.scoring.k,
        )


def log_truncated(home: Path, chance: random.Random) -> tuple[int, str]:
    """The last entry of a table's Delta log is cut; it is moved away, as the runbook says, and scored again."""
    _ended_well(home)
    log = home / "lake" / "recommendations" / "_delta_log"
    entry = max(log.glob("*.json"))
    content = entry.read_bytes()
    entry.write_bytes(content[: chance.randrange(len(content) // 4, 3 * len(content) // 4)])
    status, said = night(home)
    assert status, "it did not notice"
    entry.rename(home / entry.name)
    _ended_well(home)
    return 1, _said(said)


def wrong_vocabulary(home: Path, chance: random.Random) -> tuple[int, str]:
    """The prepared sessions say that they were encoded with another vocabulary; they are prepared again."""
    _ended_well(home)
    before, here = small.digest(home), load_shop(home)
    day, pi = disturbed_day(here), here.settings.preferences[-1]
    described = here.scoring_sessions(day) / "encoded.json"
    described.write_text(json.dumps({"vocabulary_hash": f"{chance.getrandbits(64):016x}"}))
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
    assert made.returncode, "it did not notice"
    assert small.digest(home) == before
    _ended_well(home)
    lines = [line for line in made.stderr.splitlines() if "vocabular" in line and "hint" in line]
    return 1, lines[0].partition("Failure: ")[2] or lines[0]


def scores_that_are_nan(home: Path, chance: random.Random) -> tuple[int, str]:
    """A trained model with a weight that is no number: the deployment refuses it, and the live one goes on."""
    here = load_shop(home)
    good = models.newest(here)
    bad = good.with_name("nan")
    shutil.copytree(good, bad)
    weights = load_file(bad / "weights.safetensors")
    name = chance.choice(sorted(name for name in weights if weights[name].is_floating_point()))
    weights[name].view(-1)[chance.randrange(weights[name].numel())] = np.nan
    save_file(weights, bad / "weights.safetensors")
    try:
        _deploy(here, bad)
    except MultitronError as error:
        said = str(error)
    else:
        raise AssertionError(f"a model whose {name} is not finite was deployed")
    shutil.rmtree(bad)
    _ended_well(home)
    return 1, _said(said)


LONG_SESSION = 8  # clicks


def scores_that_turn_nan(home: Path, chance: random.Random) -> tuple[int, str]:
    """A live model that scored every golden session and turns NaN at the night's longest ones: nothing is released."""
    here = load_shop(home)
    good = models.newest(here)
    bad = good.with_name("nan")
    shutil.copytree(good, bad)
    weights = load_file(bad / "weights.safetensors")
    weights["position_embedding.weight"][LONG_SESSION:] = np.nan
    save_file(weights, bad / "weights.safetensors")
    held_out = PreparedSessions.load(here.training_sessions).test
    short = np.flatnonzero(np.diff(held_out.offsets) < LONG_SESSION)
    _deploy(here, bad, held_out.select(short))
    status, said = night(home)
    assert status, "it did not notice"
    assert set(small.digest(home).values()) == {"none"}, "lists of no meaning were released"
    shutil.rmtree(bad)
    _deploy(here, good)
    _ended_well(home)
    return 1, _said(said)


def two_nights_at_once(home: Path, chance: random.Random) -> tuple[int, str]:
    """The same night started twice, a moment apart."""
    first = start(home)
    time.sleep(chance.uniform(0, 3))
    second = start(home)
    told = [finish(first), finish(second)]
    said = [text for status, text in told if status]
    assert len(said) < 2, said
    return 1, _said("\n".join(said)) if said else "nothing: the later commit replaced equal rows"


ZONES = ("Europe/Berlin", "STD0DST,M10.5.0/2,M3.5.0/3")
"""The last Sunday of March has no 2:30 in the first and two of them in the second, a zone of the southern half."""


def clock_change(home: Path, chance: random.Random) -> tuple[int, str]:
    """The machine's zone loses an hour within the day; in another zone it repeats one."""
    for zone in ZONES:
        _ended_well(home, TZ=zone)
    return len(ZONES), "nothing: days and schedules are UTC"


def daemon_killed(home: Path, chance: random.Random) -> tuple[int, str]:
    """kill -9 of the Dagster daemon while it takes a night on its way; it is started again."""
    from chaos.daemon import Daemon

    with Daemon(home, sensors=["nights"]) as daemon:
        time.sleep(chance.uniform(15, 40))
        daemon.kill()
        time.sleep(2)
        daemon.start()
        daemon.wait_until_complete(disturbed_day(load_shop(home)), timeout=300)
    return 1, "the daemon does not run (`status`), a run that was started goes on without it"


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
