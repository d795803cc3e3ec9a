"""The scoring program as an ONNX graph, for Triton's onnxruntime backend in a stock container without torch.

The graph is written node by node with `onnx.helper`. Its weights stay in `weights.safetensors` in the same folder. A
safetensors file is a header followed by plain numbers, so an initializer refers to the file by an offset. Versions of
both backends therefore store their weights in the same format.

Scoring is fp32 throughout (onnxruntime has no bfloat16 matrix product on a CPU), in blocks of items. ONNX's TopK
returns the smaller position first among equal values. Blocks and candidates are concatenated in item order, so ties
are broken by item index, as in `scoring_program`.

onnxruntime reads no request parameters. An assortment is therefore an input with one bit per item. The model has no
batch dimension in Triton's sense: the server answers each request separately.

Source of the operators: the ONNX specification, operator set 18 (onnxruntime of Triton 24.10 reads up to 21).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from multitron_core.errors import InputError
from multitron_core.model.config import ModelConfig
from serving.scoring_program import BLOCK_ITEMS

try:
    import onnx
    from onnx import TensorProto, helper, numpy_helper
except ImportError as error:
    raise InputError(
        "an export for the onnxruntime backend needs the package onnx",
        found=str(error),
        hint="pip install 'multitron-batch[onnx]'",
    ) from error

OPSET, IR_VERSION = 18, 9
INPUTS: dict[str, tuple[Any, list[str | int | None]]] = {
    "items": (TensorProto.INT64, ["sessions", "steps"]),
    "lengths": (TensorProto.INT64, ["sessions", 1]),
    "pi": (TensorProto.FLOAT, ["sessions", "objectives"]),
    "k": (TensorProto.INT32, ["sessions", 1]),
    "excluded": (TensorProto.INT64, ["sessions", "width"]),
    "assortment": (TensorProto.UINT8, ["bytes"]),
}
OUTPUTS: dict[str, tuple[Any, list[str | int | None]]] = {
    "item_index": (TensorProto.INT32, ["sessions", "listed"]),
    "score": (TensorProto.FLOAT, ["sessions", "listed"]),
}


def write_onnx(config: ModelConfig, weights: Path, path: Path, *, block_items: int = BLOCK_ITEMS) -> None:
    """Write the ONNX graph of a model.

    Args:
        config: shape of the model.
        weights: a safetensors file in the folder of `path`, with the names of `ScoringProgram.state_dict()`, float32.
        path: the `.onnx` file to write.
        block_items: items scored per matrix product; bounds memory.
    """
    graph = _Graph(weights)
    states = _states(graph, config)
    _lists(graph, config, states, block_items)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "multitron",
            [helper.make_tensor_value_info(name, *INPUTS[name]) for name in INPUTS],
            [helper.make_tensor_value_info(name, *OUTPUTS[name]) for name in OUTPUTS],
            graph.initializers,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="multitron-batch",
    )
    onnx.save(model, path)
    onnx.checker.check_model(str(path), full_check=True)


class _Graph:
    """Collects the nodes and initializers of a graph, in the order of the calls.

    An output without a given name is named after its operator.
    """

    def __init__(self, weights: Path) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._file = weights.name
        with weights.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            self._header: dict[str, Any] = json.loads(file.read(length))
        self._data = 8 + length

    def add(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Add a node with one output.

        Returns:
            The name of the output.
        """
        return self.add_many(operator, inputs, [output or f"{operator.lower()}_{len(self.nodes)}"], **attributes)[0]

    def add_many(self, operator: str, inputs: Sequence[str], outputs: list[str], **attributes: Any) -> list[str]:
        """Add a node with several outputs.

        Returns:
            The names of the outputs.
        """
        self.nodes.append(helper.make_node(operator, list(inputs), outputs, **attributes))
        return outputs

    def constant(self, values: Any, dtype: Any = np.int64) -> str:
        """Add a small tensor to the graph itself; returns its name."""
        name = f"constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def weight(self, name: str, *, first: int = 0, stop: int | None = None) -> str:
        """Add a float32 tensor of the weight file, or its rows from `first` to `stop`; returns its name."""
        entry = self._header[f"model.{name}"]
        rows, *rest = entry["shape"]
        stop = rows if stop is None else stop
        row_bytes = 4 * math.prod(rest)
        tensor = TensorProto(name=f"{name}[{first}:{stop}]", data_type=TensorProto.FLOAT, dims=[stop - first, *rest])
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {
            "location": self._file,
            "offset": self._data + entry["data_offsets"][0] + first * row_bytes,
            "length": (stop - first) * row_bytes,
        }.items():
            tensor.external_data.add(key=key, value=str(value))
        if all(other.name != tensor.name for other in self.initializers):
            self.initializers.append(tensor)
        return tensor.name

    def linear(self, x: str, name: str) -> str:
        """x W^T + b, x float [..., d]."""
        transposed = self.add("Transpose", self.weight(f"{name}.weight"), perm=[1, 0])
        return self.add("Add", self.add("MatMul", x, transposed), self.weight(f"{name}.bias"))

    def norm(self, x: str, name: str) -> str:
        """Layer normalisation over the last dimension."""
        scale, shift = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return self.add("LayerNormalization", x, scale, shift, axis=-1, epsilon=1e-5)

    def columns(self, x: str, first: int, stop: int) -> str:
        """x[..., first:stop]."""
        return self.add("Slice", x, self.constant([first]), self.constant([stop]), self.constant([-1]))


def _states(graph: _Graph, config: ModelConfig) -> str:
    """The state after the last click of each session, float [sessions, d], as in `MultiTRON.last_states`."""
    d = config.dimension
    embedded = graph.add("Gather", graph.weight("item_embedding.weight"), "items")  # (sessions, steps, d)
    linear = graph.add("Transpose", graph.weight("linear.weight"), perm=[1, 0])  # (d + objectives, d)
    item_rows = graph.add("Slice", linear, graph.constant([0]), graph.constant([d]))
    pi_rows = graph.add("Slice", linear, graph.constant([d]), graph.constant([d + len(config.objectives)]))
    preference = graph.add("Add", graph.add("MatMul", "pi", pi_rows), graph.weight("linear.bias"))  # (sessions, d)
    preference = graph.add("Unsqueeze", preference, graph.constant([1]))
    x = graph.add("Add", graph.add("MatMul", embedded, item_rows), preference)
    x = graph.add("Mul", x, graph.constant(math.sqrt(d / 2), np.float32))

    steps = graph.add("Squeeze", graph.add("Shape", "items", start=1, end=2), graph.constant([0]))
    step = graph.add("Range", graph.constant(0), steps, graph.constant(1))  # (steps)
    position = step
    if config.positions == "end":
        position = graph.add("Add", graph.add("Sub", graph.constant(config.max_length), "lengths"), step)
        position = graph.add("Min", position, graph.constant(config.max_length - 1))  # (sessions, steps)
    x = graph.add("Add", x, graph.add("Gather", graph.weight("position_embedding.weight"), position))

    # A step attends to itself and earlier steps. The last layer computes only the last step of each session, which
    # attends to the whole session.
    row = graph.add("Unsqueeze", step, graph.constant([1]))
    causal = _mask(graph, graph.add("LessOrEqual", step, row))  # (steps, steps)
    session = _mask(graph, graph.add("Less", step, "lengths"))  # (sessions, steps)
    session = graph.add("Unsqueeze", session, graph.constant([1, 2]))  # (sessions, 1, 1, steps)
    for layer in range(config.layers - 1):
        x = _layer(graph, config, layer, x, x, causal)
    last = graph.add("Unsqueeze", graph.add("Sub", "lengths", graph.constant(1)), graph.constant([2]))
    x_last = graph.add("GatherND", x, last, batch_dims=1)  # (sessions, 1, d)
    x = _layer(graph, config, config.layers - 1, x_last, x, session)  # (sessions, 1, d)
    states = graph.norm(graph.add("Squeeze", x, graph.constant([1])), "norm")
    if config.own_clicks == "attended":
        return states
    weight = graph.add("Mul", "pi", graph.weight("own_clicks"))  # (sessions, objectives)
    weight = graph.add("ReduceSum", weight, graph.constant([-1]))  # (sessions, 1)
    clicks = graph.add("ReduceSum", embedded, graph.constant([1]), keepdims=0)  # (sessions, d)
    return graph.add("Add", states, graph.add("Mul", weight, clicks))


def _mask(graph: _Graph, visible: str) -> str:
    """0 for visible steps and -inf for the others."""
    return graph.add("Where", visible, graph.constant(0.0, np.float32), graph.constant(-np.inf, np.float32))


def _layer(graph: _Graph, config: ModelConfig, number: int, queried: str, x: str, mask: str) -> str:
    """Encoder layer with the queries of `queried` and the keys and values of `x`, as in `EncoderLayer`."""
    name, d = f"layers.{number}", config.dimension
    projected = graph.linear(graph.norm(x, f"{name}.norm1"), f"{name}.attention_in")  # (sessions, steps, 3 d)
    if queried == x:
        query_source = projected
    else:
        query_source = graph.linear(graph.norm(queried, f"{name}.norm1"), f"{name}.attention_in")
    query, key, value = (
        _split_heads(graph, config, graph.columns(part, slot * d, (slot + 1) * d))
        for slot, part in enumerate((query_source, projected, projected))
    )  # (sessions, heads, steps, d / heads)
    transposed = graph.add("Transpose", key, perm=[0, 1, 3, 2])
    scale = graph.constant(1.0 / math.sqrt(d // config.heads), np.float32)
    weights = graph.add("Add", graph.add("Mul", graph.add("MatMul", query, transposed), scale), mask)
    attended = graph.add("MatMul", graph.add("Softmax", weights, axis=-1), value)
    attended = graph.add("Transpose", attended, perm=[0, 2, 1, 3])
    attended = graph.add("Reshape", attended, graph.constant([0, 0, d]))
    out = graph.add("Add", queried, graph.linear(attended, f"{name}.attention_out"))
    hidden = graph.add("Relu", graph.linear(graph.norm(out, f"{name}.norm2"), f"{name}.feed_forward_in"))
    return graph.add("Add", out, graph.linear(hidden, f"{name}.feed_forward_out"))


def _split_heads(graph: _Graph, config: ModelConfig, x: str) -> str:
    """[sessions, steps, d] -> [sessions, heads, steps, d / heads]."""
    shape = graph.constant([0, 0, config.heads, config.dimension // config.heads])
    return graph.add("Transpose", graph.add("Reshape", x, shape), perm=[0, 2, 1, 3])


def _lists(graph: _Graph, config: ModelConfig, states: str, block_items: int) -> None:
    """Add the outputs of the graph: the k best allowed and not excluded items, from states [sessions, d]."""
    k = graph.add("Cast", graph.add("ReduceMax", "k", keepdims=0), to=TensorProto.INT64)
    k = graph.add("Reshape", k, graph.constant([1]))
    width = graph.add("Shape", "excluded", start=1, end=2)
    wanted = graph.add("Add", k, width)  # at least k of these are not excluded
    bits = [[0.0 if byte >> bit & 1 else -np.inf for bit in range(8)] for byte in range(256)]
    packed = graph.add("Cast", "assortment", to=TensorProto.INT32)
    unpacked = graph.add("Gather", graph.constant(bits, np.float32), packed)
    allowed = graph.add("Reshape", unpacked, graph.constant([-1]))  # (items, rounded up to 8)
    scores, index = [], []
    for first in range(0, config.items, block_items):
        stop = min(first + block_items, config.items)
        table = graph.weight("item_embedding.weight", first=first + 1, stop=stop + 1)
        bias = graph.add("Slice", allowed, graph.constant([first]), graph.constant([stop]))
        block = graph.add("Gemm", states, table, bias, transB=1)  # (sessions, block)
        count = graph.add("Min", wanted, graph.constant([stop - first]))
        best, position = graph.add_many("TopK", [block, count], [f"best_{first}", f"position_{first}"])
        scores.append(best)
        index.append(graph.add("Add", position, graph.constant(first + 1)))
    candidates = graph.add("Concat", *scores, axis=1)
    items = graph.add("Concat", *index, axis=1)
    matches = graph.add(
        "Equal",
        graph.add("Unsqueeze", items, graph.constant([2])),
        graph.add("Unsqueeze", "excluded", graph.constant([1])),
    )  # (sessions, candidates, width)
    matches = graph.add("Cast", matches, to=TensorProto.INT32)
    is_excluded = graph.add("ReduceMax", matches, graph.constant([2]), keepdims=0)
    is_excluded = graph.add("Cast", is_excluded, to=TensorProto.BOOL)
    remaining = graph.add("Where", is_excluded, graph.constant(-np.inf, np.float32), candidates)
    _, position = graph.add_many("TopK", [remaining, k], ["score", "list_position"])
    chosen = graph.add("GatherElements", items, position, axis=1)
    graph.add("Cast", chosen, output="item_index", to=TensorProto.INT32)
