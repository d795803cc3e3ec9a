from __future__ import annotations

import pytest
import torch

from multitron_core.model.config import ModelConfig
from multitron_core.model.transformer import EncoderLayer, MultiTRON, with_normalised_embeddings


def small_model(**settings: object) -> MultiTRON:
    torch.manual_seed(3)
    model = MultiTRON(ModelConfig(items=30, dimension=12, heads=2, layers=2, max_length=6, **settings)).eval()  # type: ignore[arg-type]
    if model.own_clicks is not None:  # they start at 0
        model.own_clicks.data.copy_(torch.tensor([0.3, -0.7]))
    return model


ITEMS = torch.tensor([[3, 9, 9, 30], [5, 1, 0, 0], [7, 0, 0, 0]])
LENGTHS = torch.tensor([4, 2, 1])
PI = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])


@pytest.mark.parametrize("own_clicks", ["attended", "added"])
@pytest.mark.parametrize("positions", ["start", "end"])
def test_forward_ignores_padding(positions: str, own_clicks: str) -> None:
    model = small_model(positions=positions, own_clicks=own_clicks)
    together = model(ITEMS, LENGTHS, PI)
    assert together.shape == (3, 4, 12)
    for session, length in enumerate(LENGTHS.tolist()):
        alone = model(ITEMS[session : session + 1, :length], LENGTHS[session : session + 1], PI[session : session + 1])
        torch.testing.assert_close(together[session : session + 1, :length], alone, atol=1e-6, rtol=0)


@pytest.mark.parametrize("own_clicks", ["attended", "added"])
@pytest.mark.parametrize("positions", ["start", "end"])
def test_last_states_match_forward(positions: str, own_clicks: str) -> None:
    model = small_model(positions=positions, own_clicks=own_clicks)
    states = model(ITEMS, LENGTHS, PI)[torch.arange(3), LENGTHS - 1]
    torch.testing.assert_close(model.last_states(ITEMS, LENGTHS, PI), states, atol=1e-6, rtol=0)


def test_forward_is_causal() -> None:
    model = small_model()
    states = model(ITEMS, LENGTHS, PI)
    changed = ITEMS.clone()
    changed[0, 3] = 11
    torch.testing.assert_close(model(changed, LENGTHS, PI)[0, :3], states[0, :3], atol=1e-6, rtol=0)
    assert not torch.allclose(model(changed, LENGTHS, PI)[0, 3], states[0, 3], atol=1e-3)


@torch.no_grad()
def test_forward_adds_own_clicks_by_objective() -> None:
    model, without = small_model(own_clicks="added"), small_model()
    assert model.own_clicks is not None
    model.own_clicks.copy_(torch.tensor([0.5, 2.0]))
    without.load_state_dict({name: x for name, x in model.state_dict().items() if name != "own_clicks"})
    plain, added = without(ITEMS, LENGTHS, PI), model(ITEMS, LENGTHS, PI)
    for session, length in enumerate(LENGTHS.tolist()):
        for step in range(length):
            state, clicks = plain[session, step], model.item_embedding(ITEMS[session, : step + 1]).sum(0)
            expected = state + (PI[session, 0] * 0.5 + PI[session, 1] * 2.0) * clicks
            torch.testing.assert_close(added[session, step], expected, atol=1e-6, rtol=1e-6)
    one_pi = torch.tensor([0.3, 0.7])
    torch.testing.assert_close(model(ITEMS, LENGTHS, one_pi), model(ITEMS, LENGTHS, one_pi.expand(3, 2)))


def test_forward_with_positions_from_the_end_leaks_the_length() -> None:
    # The official choice: in a longer session, the same first click has another state.
    first = {}
    for positions in ("start", "end"):
        model = small_model(positions=positions)
        long, short = torch.tensor([[3, 9, 4]]), torch.tensor([[3]])
        one_pi = torch.tensor([0.3, 0.7])
        first[positions] = (model(long, torch.tensor([3]), one_pi)[0, 0], model(short, torch.tensor([1]), one_pi)[0, 0])
    torch.testing.assert_close(*first["start"], atol=1e-6, rtol=0)
    assert not torch.allclose(*first["end"], atol=1e-3)


def test_forward_broadcasts_one_pi() -> None:
    model = small_model()
    torch.testing.assert_close(model(ITEMS, LENGTHS, PI[1]), model(ITEMS, LENGTHS, PI[1].expand(3, 2)))
    assert not torch.allclose(model(ITEMS, LENGTHS, PI[0]), model(ITEMS, LENGTHS, PI[2]), atol=1e-3)


def test_scores_are_products_with_the_tied_embedding() -> None:
    model = small_model()
    states = torch.randn(2, 3, 12)
    scores = model.scores(states)
    assert scores.shape == (2, 3, 30)
    expected = (states[1, 2].double() * model.item_embedding.weight[30].double()).sum()
    assert scores[1, 2, 29].item() == pytest.approx(expected.item(), abs=1e-5)


def test_encoder_layer_matches_torch() -> None:
    """Against torch's own pre-norm encoder layer with the same weights."""
    model = small_model()
    ours = model.layers[0]
    assert isinstance(ours, EncoderLayer)
    theirs = torch.nn.TransformerEncoderLayer(12, 2, 12, dropout=0.0, batch_first=True, norm_first=True).eval()
    theirs.load_state_dict(
        {
            "self_attn.in_proj_weight": ours.attention_in.weight,
            "self_attn.in_proj_bias": ours.attention_in.bias,
            "self_attn.out_proj.weight": ours.attention_out.weight,
            "self_attn.out_proj.bias": ours.attention_out.bias,
            "linear1.weight": ours.feed_forward_in.weight,
            "linear1.bias": ours.feed_forward_in.bias,
            "linear2.weight": ours.feed_forward_out.weight,
            "linear2.bias": ours.feed_forward_out.bias,
            **{
                f"{norm}.{name}": value
                for norm in ("norm1", "norm2")
                for name, value in getattr(ours, norm).state_dict().items()
            },
        }
    )
    x = torch.randn(3, 5, 12)
    mask = torch.nn.Transformer.generate_square_subsequent_mask(5)
    torch.testing.assert_close(ours(x), theirs(x, src_mask=mask, is_causal=True), atol=1e-5, rtol=0)


def test_with_normalised_embeddings_restores_the_weights() -> None:
    model = MultiTRON(ModelConfig(items=5, dimension=8, item_norm="unit"))
    before = model.item_embedding.weight.detach().clone()
    with with_normalised_embeddings(model):
        norms = model.item_embedding.weight.norm(dim=1)
        assert norms.tolist() == pytest.approx([0.0, *[1.0] * 5])
        torch.testing.assert_close(model.item_embedding.weight * before.norm(dim=1, keepdim=True), before)
    assert torch.equal(model.item_embedding.weight, before)


def test_with_normalised_embeddings_keeps_free_items() -> None:
    model = MultiTRON(ModelConfig(items=5, dimension=8, item_norm="free"))
    before = model.item_embedding.weight.detach().clone()
    with with_normalised_embeddings(model):
        assert torch.equal(model.item_embedding.weight, before)
