"""Compare the lists of the deployed program with an exact fp32 search; every list must agree up to ties.

    python benchmarks/exactness.py                                   # 20,000 sessions x 5 pi, 43 thousand items
    python benchmarks/exactness.py --model MODEL --sessions FOLDER   # a trained model, encoded sessions
    python benchmarks/exactness.py --device cuda                     # the GPU program, on a GPU

The search computes every score in fp32 (`states @ table.T`) from the model folder and sorts by descending score, then
ascending index. The compared lists are those of `score_sessions` on a deployed version, with the program that is faster
on this machine; its name is printed. Two lists agree if all items are equal, or if the items differ only where their
scores lie within `--tolerance` of each other, relative to the largest score: sums of the same products in another order
may round differently. Any other difference is printed, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from scoring import write_random_shop

from multitron_core.model.folder import load_model
from multitron_core.model.transformer import MultiTRON
from multitron_core.preference.keys import pi_vector
from multitron_core.sessions.encoded import EncodedSessions
from multitron_core.sessions.vocabulary import Vocabulary
from serving.deployment import deploy
from serving.in_process import InProcessServer
from serving.repository import InstanceSettings, ModelRepository
from serving.scorer import score_sessions
from serving.version_program import VersionProgram

BATCH = 512


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="model folder; by default random weights")
    parser.add_argument("--sessions", type=Path, help="folder of encoded sessions, as `scoring_sessions` writes them")
    parser.add_argument("--count", type=int, default=20_000, help="number of sessions to compare")
    parser.add_argument("--items", type=int, default=43_000, help="items of the model with random weights")
    parser.add_argument("--pi", nargs="+", default=["0.00", "0.25", "0.50", "0.75", "1.00"])
    parser.add_argument("--k", type=int, default=20)
    parser.add_argument("--device", default="cpu", help="device of the deployed program and of the search")
    parser.add_argument("--tolerance", type=float, default=2e-6)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    parser.add_argument("--small", action="store_true", help="seconds: 2,000 items, 500 sessions")
    options = parser.parse_args()
    if options.small:
        options.items, options.count = 2_000, 500
    with (
        tempfile.TemporaryDirectory() as folder,
        InProcessServer(Path(folder) / "repository", device=options.device) as server,
    ):
        if options.model is None:
            write_random_shop(Path(folder), items=options.items, sessions=options.count)
        model_dir = options.model or Path(folder) / "model"
        sessions = EncodedSessions.load(options.sessions or Path(folder) / "sessions")
        sessions = sessions.select(np.arange(min(options.count, len(sessions))))
        settings = InstanceSettings(on_gpu=options.device != "cpu")
        version = deploy(model_dir, server, golden_pi=["0.50"], settings=settings).version
        version_folder = ModelRepository(Path(folder) / "repository").version_folder(version)
        print(f"program: {VersionProgram(str(version_folder), device=options.device).chosen}")
        vocabulary = Vocabulary.load(model_dir / "vocabulary.parquet")
        found = {"lists": 0, "identical": 0, "ties": 0, "wrong": 0}
        begun = time.perf_counter()
        for pi in options.pi:
            compared = _compare(load_model(model_dir, options.device), server, vocabulary, sessions, pi, options)
            found = {name: found[name] + compared[name] for name in found}
    print(
        f"{found['lists']} lists of {options.k}: {found['identical']} identical, {found['ties']} differ only in ties, "
        f"{found['wrong']} wrong; {time.perf_counter() - begun:.0f} s"
    )
    if options.json:
        options.json.write_text(json.dumps(found))
    return 1 if found["wrong"] else 0


def _compare(
    model: MultiTRON,
    server: InProcessServer,
    vocabulary: Vocabulary,
    sessions: EncodedSessions,
    pi: str,
    options: argparse.Namespace,
) -> dict[str, int]:
    """Numbers of lists at one preference: all, identical, different in ties, wrong."""
    order = sessions.session_ids.arg_sort().to_numpy()
    frames = score_sessions(
        sessions, pi, options.k, scorer=server.scorer(), vocabulary=vocabulary, in_flight=1, progress=lambda _: None
    )
    index = np.concatenate([vocabulary.encode(frame["item_id"]).to_numpy().reshape(-1, options.k) for frame in frames])
    counted = {"lists": len(index), "identical": 0, "ties": 0, "wrong": 0}
    for start in range(0, len(order), BATCH):
        scores = _all_scores(model, sessions.select(order[start : start + BATCH]), pi)  # (sessions, items)
        deployed = torch.from_numpy(index[start : start + BATCH].astype(np.int64)) - 1
        deployed_scores = scores.gather(1, deployed.to(scores.device)).cpu()
        best, place = (found.cpu() for found in _search(scores, options.k))
        same = (place == deployed).all(dim=1)
        allowance = options.tolerance * scores.abs().amax(dim=1, keepdim=True).cpu()
        distinct = torch.tensor([len(set(row)) == options.k for row in deployed.tolist()])
        tied = ((best - deployed_scores).abs() <= allowance).all(dim=1) & distinct & ~same
        counted["identical"] += int(same.sum())
        counted["ties"] += int(tied.sum())
        for row in torch.nonzero(~(same | tied)).flatten().tolist():
            counted["wrong"] += 1
            print(
                f"pi {pi}, session {sessions.session_ids[int(order[start + row])]}: "
                f"{deployed[row]}, expected {place[row]}"
            )
    return counted


@torch.inference_mode()
def _all_scores(model: MultiTRON, part: EncodedSessions, pi: str) -> torch.Tensor:
    longest = model.config.max_length
    used = np.minimum(part.lengths, longest)
    items = torch.zeros(len(part), int(used.max()), dtype=torch.int64)
    for row, (end, length) in enumerate(zip(part.offsets[1:], used, strict=True)):
        items[row, :length] = torch.from_numpy(np.asarray(part.items[end - length : end], np.int64))
    inputs = (items, torch.from_numpy(used.astype(np.int64)), torch.tensor(pi_vector(pi)))
    states = model.last_states(*(tensor.to(model.item_embedding.weight.device) for tensor in inputs))
    return model.scores(states)


def _search(scores: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Top k by descending score, then ascending index: `topk` of 2 k columns, then a stable sort in index order."""
    _, place = torch.topk(scores, min(2 * k, scores.shape[1]), dim=1)
    place, _ = place.sort(dim=1)
    best, rank = torch.sort(scores.gather(1, place), dim=1, descending=True, stable=True)
    return best[:, :k], place.gather(1, rank)[:, :k]


if __name__ == "__main__":
    sys.exit(main())
