"""The importer against the official architecture, written here a second time from torch's own encoder."""

from __future__ import annotations

import math
from pathlib import Path

import polars as pl
import pytest
import torch
from torch import Tensor, nn

from multitron_core.errors import InputError
from multitron_core.model.description import ModelDescription
from multitron_core.model.folder import load_model
from multitron_core.official import import_checkpoint, main, model_from_official_state
from multitron_core.sessions.vocabulary import Vocabulary
from multitron_core.training.config import training_config

ITEMS, D, LENGTH, LAYERS = 40, 12, 9, 3


class LeftPadded(nn.Module):
    """Sessions padded on the left to LENGTH, the last click at the last position, padding hidden by a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.item_embedding = nn.Embedding(ITEMS + 1, D)
        self.positions = nn.Embedding(LENGTH, D)
        self.linear = nn.Linear(D + 2, D)
        layer = nn.TransformerEncoderLayer(D, nhead=1, dim_feedforward=D, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, LAYERS, norm=nn.LayerNorm(D), enable_nested_tensor=False)

    def forward(self, clicks: list[int], pi: Tensor) -> Tensor:  # -> (clicks, d)
        padding = LENGTH - len(clicks)
        items = torch.tensor([[0] * padding + clicks])
        x = self.linear(torch.cat([self.item_embedding(items), pi.expand(1, LENGTH, 2)], dim=-1))
        x = x * math.sqrt(D / 2) + self.positions.weight
        hidden = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1)
        hidden[:, :padding] = True
        hidden.fill_diagonal_(False)  # a padded step sees itself, or its softmax would be empty
        return self.encoder(x, mask=hidden)[0, padding:]

    def official_state(self) -> dict[str, Tensor]:
        """The tensors as an official checkpoint names them."""
        assert isinstance(self.encoder.norm, nn.LayerNorm)
        state = {
            "item_embedding.weight": self.item_embedding.weight,
            "output_embedding.weight": self.item_embedding.weight,
            "positional_embedding_layer.embedding.weight": self.positions.weight,
            "positional_embedding_layer.pos_indices_const": torch.arange(LENGTH),
            "linear.weight": self.linear.weight,
            "linear.bias": self.linear.bias,
            "norm.weight": self.encoder.norm.weight,
            "norm.bias": self.encoder.norm.bias,
            "regularization_penalty": torch.tensor(0.2),
            "future_mask_const": torch.zeros(LENGTH, LENGTH),
            "seq_diag_const": torch.ones(LENGTH, LENGTH, dtype=torch.bool),
            "bias_ones": torch.ones(2, LENGTH, 1),
            **{f"encoder.{name}": tensor for name, tensor in self.encoder.state_dict().items()},
        }
        return {name: tensor.detach().clone() for name, tensor in state.items()}


@pytest.fixture
def official() -> LeftPadded:
    torch.manual_seed(0)
    model = LeftPadded().eval()
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms that are not 0 and 1
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def saved(model: LeftPadded, path: Path, **hyper_parameters: object) -> Path:
    torch.save({"state_dict": model.official_state(), "hyper_parameters": hyper_parameters, "epoch": 3}, path)
    return path


@pytest.mark.parametrize("pi_order", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("length", [1, 2, 5, LENGTH])
def test_model_from_official_state_has_equal_states_and_scores(
    official: LeftPadded, pi_order: float, length: int
) -> None:
    clicks = torch.randint(1, ITEMS + 1, (length,)).tolist()
    pi = torch.tensor([1.0 - pi_order, pi_order])
    ours = model_from_official_state(official.official_state())
    with torch.no_grad():
        expected = official(clicks, pi)
        states = ours(torch.tensor([clicks + [0] * 3])[:, :LENGTH], torch.tensor([length]), pi)[0, :length]
        last = ours.last_states(torch.tensor([clicks]), torch.tensor([length]), pi)[0]
    torch.testing.assert_close(states, expected, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(last, expected[-1], atol=2e-5, rtol=1e-5)
    expected_scores = expected @ official.item_embedding.weight.detach()[1:].T
    torch.testing.assert_close(ours.scores(states).detach(), expected_scores, atol=1e-4, rtol=1e-4)


def test_import_checkpoint_writes_a_model_folder(official: LeftPadded, tmp_path: Path) -> None:
    vocabulary = Vocabulary(pl.Series([f"item {i}" for i in range(ITEMS)]))
    vocabulary.save(tmp_path / "vocabulary.parquet")
    path = saved(official, tmp_path / "a.ckpt", dropout_rate=0.2, beta=[1.2, 1.2], regularization_penalty=0.5)
    folder = import_checkpoint(path, tmp_path / "model", vocabulary=tmp_path / "vocabulary.parquet")
    model = load_model(folder)
    description = ModelDescription.read(folder)
    assert model.config.positions == "end"
    assert model.config.dropout == 0.2
    assert description.vocabulary_hash == vocabulary.hash == Vocabulary.load(folder / "vocabulary.parquet").hash
    assert len(description.version) == 12
    training = training_config(folder)
    assert (training.data.beta, training.losses.regularisation, training.negatives.collisions) == (
        (1.2, 1.2),
        0.5,
        "official",
    )
    torch.testing.assert_close(model.norm.weight, official.official_state()["norm.weight"])


def test_import_checkpoint_without_vocabulary_numbers_items(official: LeftPadded, tmp_path: Path) -> None:
    folder = import_checkpoint(saved(official, tmp_path / "a.ckpt"), tmp_path / "model")
    assert Vocabulary.load(folder / "vocabulary.parquet").item_ids.to_list() == list(range(1, ITEMS + 1))


def test_import_checkpoint_version_follows_the_weights(official: LeftPadded, tmp_path: Path) -> None:
    versions = []
    for name in ("a", "b", "c"):
        if name == "c":
            official.linear.get_parameter("bias").data.add_(1.0)
        folder = import_checkpoint(saved(official, tmp_path / f"{name}.ckpt"), tmp_path / name)
        versions.append(ModelDescription.read(folder).version)
    assert versions[0] == versions[1] != versions[2]


class TestImportCheckpointRefuses:
    @pytest.mark.parametrize(
        "change",
        [
            lambda state: state.pop("linear.weight"),
            lambda state: state.pop("encoder.layers.1.norm2.bias"),
            lambda state: state.update({"encoder.layers.0.cross.weight": torch.zeros(1)}),
            lambda state: state.update({"output_embedding.weight": torch.zeros(ITEMS + 1, D)}),
            lambda state: state.update({"item_embedding.weight": torch.zeros(ITEMS + 1, D + 1)}),
            lambda state: state.update({"linear.weight": torch.zeros(D, D + 3)}),
        ],
        ids=["no linear", "no norm", "unknown tensor", "not tied", "output bias", "three objectives"],
    )
    def test_states_of_other_models(self, official: LeftPadded, change: object) -> None:
        state = official.official_state()
        change(state)  # type: ignore[operator]
        with pytest.raises(InputError, match="hint: import a checkpoint of the released configs"):
            model_from_official_state(state)

    def test_a_pickle_that_would_run_code(self, tmp_path: Path) -> None:
        class Bomb:
            def __reduce__(self) -> tuple:
                return (Path.touch, (tmp_path / "it ran",))

        torch.save({"state_dict": {}, "hyper_parameters": Bomb()}, tmp_path / "bomb.ckpt")
        with pytest.raises(InputError, match="not a checkpoint"):
            import_checkpoint(tmp_path / "bomb.ckpt", tmp_path / "model")
        assert not (tmp_path / "it ran").exists()
        assert not (tmp_path / "model").exists()

    @pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
    def test_files_that_are_no_checkpoint(self, tmp_path: Path, content: bytes | None) -> None:
        path = tmp_path / "a.ckpt"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(InputError, match="not a checkpoint"):
            import_checkpoint(path, tmp_path / "model")

    def test_a_final_activation(self, official: LeftPadded, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="final activation"):
            import_checkpoint(saved(official, tmp_path / "a.ckpt", final_activation=True), tmp_path / "model")

    def test_another_vocabulary_and_a_folder_that_exists(self, official: LeftPadded, tmp_path: Path) -> None:
        path = saved(official, tmp_path / "a.ckpt")
        with pytest.raises(InputError, match="length"):
            import_checkpoint(path, tmp_path / "model", vocabulary=Vocabulary(pl.Series([1, 2])))
        (tmp_path / "model").mkdir()
        with pytest.raises(InputError, match="exists"):
            import_checkpoint(path, tmp_path / "model")

    def test_the_command(self, official: LeftPadded, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = saved(official, tmp_path / "a.ckpt")
        assert main(["--checkpoint", str(path), "--out", str(tmp_path / "model")]) == 0
        assert main(["--checkpoint", str(path), "--out", str(tmp_path / "model")]) == 2
        assert "error: the model folder exists" in capsys.readouterr().err
