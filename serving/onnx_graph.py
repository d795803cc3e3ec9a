"""The scoring program as an ONNX graph, for Triton's onnxruntime backend: a stock container, without torch.

The graph is written node by node with `onnx.helper`. Its weights stay in the `weights.safetensors` beside it: a
safetensors file is a header and plain numbers, so an initializer names the file and an offset, and both variants of a
version share one file and its checksum. It scores in fp32 throughout (onnxruntime has no bfloat16 product on a CPU)
and in blocks of items. ONNX's TopK puts the smaller place first among equals; blocks and candidates are joined in the
order of items, so ties are broken by item index as in `program`.

onnxruntime reads no request parameters, so an assortment is an input, a bit an item, and the model has no batch
dimension in Triton's sense: each request is answered by itself.

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
        "the ONNX variant needs the package onnx", found=str(error), hint="pip install 'multitron-batch[onnx]'"
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
    """Write the graph.

    Args:
        config: the model's shape.
        weights: a safetensors file in the folder of `path`, with the names of `ScoringProgram.state_dict()`.
        path: the `.onnx` file to write.
        block_items: items scored at a time.
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
    """Nodes in the order in which they are added; a node's output is named after its operator."""

    def __init__(self, weights: Path) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._file = weights.name
        with weights.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            self._header: dict[str, Any] = json.loads(file.read(length))
        self._data = 8 + length

    def add(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """A node with one output; its name."""
        return self.add_many(operator, inputs, [output or f"{operator.lower()}_{len(self.nodes)}"], **attributes)[0]

    def add_many(self, operator: str, inputs: Sequence[str], outputs: list[str], **attributes: Any) -> list[str]:
        """A node with several outputs."""
        self.nodes.append(helper.make_node(operator, list(inputs), outputs, **attributes))
        return outputs

    def constant(self, values: Any, dtype: Any = np.int64) -> str:
        """A small tensor inside the graph."""
        name = f"constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def weight(self, name: str, *, first: int = 0, stop: int | None = None) -> str:
        """A float32 tensor of the weight file, or its rows from `first` to `stop`."""
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
        if all(known.name != tensor.name for known in self.initializers):
            self.initializers.append(tensor)
        return tensor.name

    def linear(self, x: str, name: str) -> str:
        """x W^T + b, x float [..., d]."""
        turned = self.add("Transpose", self.weight(f"{name}.weight"), perm=[1, 0])
        return self.add("Add", self.add("MatMul", x, turned), self.weight(f"{name}.bias"))

    def norm(self, x: str, name: str) -> str:
        """Layer normalisation over the last dimension."""
        scale, shift = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return self.add("LayerNormalization", x, scale, shift, axis=-1, epsilon=1e-5)

    def columns(self, x: str, first: int, stop: int) -> str:
        """x[..., first:stop]."""
        return self.add("Slice", x, self.constant([first]), self.constant([stop]), self.constant([-1]))


def _states(graph: _Graph, config: ModelConfig) -> str:
    """The state after each session's last click, float [sessions, d]: what `MultiTRON.last_states` computes."""
    d = config.dimension
    embedded = graph.add("Gather", graph.weight("item_embedding.weight"), "items")  # (sessions, steps, d)
    joint = graph.add("Transpose", graph.weight("linear.weight"), perm=[1, 0])  # (d + objectives, d)
    of_item = graph.add("Slice", joint, graph.constant([0]), graph.constant([d]))
    of_pi = graph.add("Slice", joint, graph.constant([d]), graph.constant([d + len(config.objectives)]))
    preference = graph.add("Add", graph.add("MatMul", "pi", of_pi), graph.weight("linear.bias"))  # (sessions, d)
    preference = graph.add("Unsqueeze", preference, graph.constant([1]))
    x = graph.add("Add", graph.add("MatMul", embedded, of_item), preference)
    x = graph.add("Mul", x, graph.constant(math.sqrt(d / 2), np.float32))

    steps = graph.add("Squeeze", graph.add("Shape", "items", start=1, end=2), graph.constant([0]))
    step = graph.add("Range", graph.constant(0), steps, graph.constant(1))  # (steps)
    place = step
    if config.positions == "end":
        place = graph.add("Add", graph.add("Sub", graph.constant(config.max_length), "lengths"), step)
        place = graph.add("Min", place, graph.constant(config.max_length - 1))  # (sessions, steps)
    x = graph.add("Add", x, graph.add("Gather", graph.weight("position_embedding.weight"), place))

    # A step attends to those up to it; the last layer computes one step alone, which attends up to the session's end.
    row = graph.add("Unsqueeze", step, graph.constant([1]))
    causal = _masked(graph, graph.add("LessOrEqual", step, row))  # (steps, steps)
    whole = _masked(graph, graph.add("Less", step, "lengths"))  # (sessions, steps)
    whole = graph.add("Unsqueeze", whole, graph.constant([1, 2]))  # (sessions, 1, 1, steps)
    for layer in range(config.layers - 1):
        x = _layer(graph, config, layer, x, x, causal)
    last = graph.add("Unsqueeze", graph.add("Sub", "lengths", graph.constant(1)), graph.constant([2]))
    x_last = graph.add("GatherND", x, last, batch_dims=1)  # (sessions, 1, d)
    x = _layer(graph, config, config.layers - 1, x_last, x, whole)  # (sessions, 1, d)
    states = graph.norm(graph.add("Squeeze", x, graph.constant([1])), "norm")
    if config.own_clicks == "attended":
        return states
    often = graph.add("Mul", "pi", graph.weight("own_clicks"))  # (sessions, objectives)
    often = graph.add("ReduceSum", often, graph.constant([-1]))  # (sessions, 1)
    clicks = graph.add("ReduceSum", embedded, graph.constant([1]), keepdims=0)  # (sessions, d)
    return graph.add("Add", states, graph.add("Mul", often, clicks))


def _masked(graph: _Graph, seen: str) -> str:
    """0 where a step is seen and -inf where it is not."""
    return graph.add("Where", seen, graph.constant(0.0, np.float32), graph.constant(-np.inf, np.float32))


def _layer(graph: _Graph, config: ModelConfig, number: int, queried: str, x: str, mask: str) -> str:
    """An encoder layer for the steps `queried` over the steps `x`: what `model.EncoderLayer` computes."""
    name, d = f"layers.{number}", config.dimension
    joint = graph.linear(graph.norm(x, f"{name}.norm1"), f"{name}.attention_in")  # (sessions, steps, 3 d)
    asked = joint if queried == x else graph.linear(graph.norm(queried, f"{name}.norm1"), f"{name}.attention_in")
    query, key, value = (
        _split(graph, config, graph.columns(part, place * d, (place + 1) * d))
        for place, part in enumerate((asked, joint, joint))
    )  # (sessions, heads, steps, d / heads)
    turned = graph.add("Transpose", key, perm=[0, 1, 3, 2])
    scale = graph.constant(1.0 / math.sqrt(d // config.heads), np.float32)
    weights = graph.add("Add", graph.add("Mul", graph.add("MatMul", query, turned), scale), mask)
    attended = graph.add("MatMul", graph.add("Softmax", weights, axis=-1), value)
    attended = graph.add("Transpose", attended, perm=[0, 2, 1, 3])
    attended = graph.add("Reshape", attended, graph.constant([0, 0, d]))
    out = graph.add("Add", queried, graph.linear(attended, f"{name}.attention_out"))
    hidden = graph.add("Relu", graph.linear(graph.norm(out, f"{name}.norm2"), f"{name}.feed_forward_in"))
    return graph.add("Add", out, graph.linear(hidden, f"{name}.feed_forward_out"))


def _split(graph: _Graph, config: ModelConfig, x: str) -> str:  # (sessions, steps, d) -> (sessions, heads, steps, _)
    shape = graph.constant([0, 0, config.heads, config.dimension // config.heads])
    return graph.add("Transpose", graph.add("Reshape", x, shape), perm=[0, 2, 1, 3])


def _lists(graph: _Graph, config: ModelConfig, states: str, block_items: int) -> None:
    """The k best allowed items that are not excluded: the graph's outputs, from states [sessions, d]."""
    k = graph.add("Cast", graph.add("ReduceMax", "k", keepdims=0), to=TensorProto.INT64)
    k = graph.add("Reshape", k, graph.constant([1]))
    width = graph.add("Shape", "excluded", start=1, end=2)
    wanted = graph.add("Add", k, width)  # whatever is excluded, k of these are left
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
        best, place = graph.add_many("TopK", [block, count], [f"best_{first}", f"place_{first}"])
        scores.append(best)
        index.append(graph.add("Add", place, graph.constant(first + 1)))
    candidates = graph.add("Concat", *scores, axis=1)
    items = graph.add("Concat", *index, axis=1)
    barred = graph.add(
        "Equal",
        graph.add("Unsqueeze", items, graph.constant([2])),
        graph.add("Unsqueeze", "excluded", graph.constant([1])),
    )  # (sessions, candidates, width)
    is_barred = graph.add("ReduceMax", graph.add("Cast", barred, to=TensorProto.INT32), graph.constant([2]), keepdims=0)
    is_barred = graph.add("Cast", is_barred, to=TensorProto.BOOL)
    left = graph.add("Where", is_barred, graph.constant(-np.inf, np.float32), candidates)
    _, place = graph.add_many("TopK", [left, k], ["score", "list_place"])
    chosen = graph.add("GatherElements", items, place, axis=1)
    graph.add("Cast", chosen, output="item_index", to=TensorProto.INT32)
