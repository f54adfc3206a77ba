"""llama.cpp's ``moe-trace`` example: a CSV file with one line ``layer,expert`` for each routed activation.

The file is written as the graph runs: for each micro-batch the MoE layers in order, for each layer its tokens in order,
for each token its top-k. In the last layer llama.cpp routes only the tokens whose output is wanted (in a prompt: the
last one, or none), so there a micro-batch may have fewer tokens, its last ones; the others count as not recorded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import PositiveInt

from moesim.errors import TraceError
from moesim.traces.array_files import Array
from moesim.traces.importers._number_lines import Piece, pieces, refuse, require_table
from moesim.traces.importers._requests import Numbers, request_columns
from moesim.traces.importers._routing import Routing, imported_trace, numbered, refuse_sparse
from moesim.traces.trace import RoutingTrace

_HEADER = b"layer,expert\n"
_MAX_LAYER = 65535


def import_llama_cpp(
    path: Path,
    *,
    num_experts: PositiveInt,
    top_k: PositiveInt,
    prompt_tokens: Numbers,
    request_tokens: Numbers | None = None,
    model: str = "",
) -> RoutingTrace:
    """A trace from llama.cpp's ``layer,expert`` CSV, with or without that header line.

    Args:
        path: the file.
        num_experts: routed experts per layer.
        top_k: experts per token.
        prompt_tokens: how many tokens of each request are its prompt.
        request_tokens: how many tokens each request has; None: the file is one request.
        model: name of the language model.

    Raises:
        FileError: missing or no text.
        TraceError: a broken line (with its number), or routing that doesn't fit the options.
    """
    place = str(path)
    layer, expert, first_line = _activations(path, num_experts)
    layers, index = numbered(layer)
    cells = _Cells.of(index, top_k, first_line, place)
    refuse_sparse((cells.num_tokens, len(layers), top_k), len(layer), place)
    experts = cells.scatter(expert, len(layers), top_k)
    request, position, phase = request_columns(len(experts), prompt_tokens, request_tokens, place)
    return imported_trace(
        Routing(experts, request, position, phase),
        place,
        num_experts,
        name=path.stem,
        model=model,
        moe_layer_indices=[int(one) for one in layers],
    )


def _activations(path: Path, num_experts: int) -> tuple[Array, Array, int]:
    """Layer and expert of every line, uint16 [activations] each, and the number of the first such line."""
    place, first_line = str(path), 1
    layers, experts = [], []
    for piece in pieces(path):
        if piece.first_line == 1 and piece.text.startswith(_HEADER):
            first_line = 2
            piece = Piece(first_line, piece.text.removeprefix(_HEADER))
        table = require_table(piece, place, b",\n", 2, "'layer,expert', two whole numbers")
        layer, expert = table.values.T
        refuse(table, ~_whole(layer, _MAX_LAYER), place, "names an impossible layer")
        wrong = f"names an expert outside 0 to {num_experts - 1}"
        refuse(table, ~_whole(expert, num_experts - 1), place, wrong, "is num_experts right?")
        layers.append(layer.astype(np.uint16))
        experts.append(expert.astype(np.uint16))
    if not sum(map(len, layers)):
        raise TraceError.of(place, "holds no activations")
    return np.concatenate(layers), np.concatenate(experts), first_line


def _whole(values: Array, largest: int) -> Array:
    return np.asarray((values >= 0) & (values <= largest) & (values == np.floor(values)))


@dataclass(frozen=True)
class _Cells:
    """What each top-k lines of the file are about.

    Attributes:
        token, layer: token, and place of the layer in the order of layers. [lines / top_k]
        num_tokens: of the file.
    """

    token: Array
    layer: Array
    num_tokens: int

    @classmethod
    def of(cls, layer: Array, top_k: int, first_line: int, place: str) -> _Cells:
        """``layer``: place of each line's layer in the order of layers. [lines]"""
        start = np.concatenate([[0], np.flatnonzero(np.diff(layer)) + 1])  # of each run of lines of one layer
        run_layer, lines = layer[start], np.diff(start, append=len(layer))

        def refuse_runs(wrong: Array, message: str, hint: str) -> None:
            if wrong.any():
                raise TraceError.of(f"{place}:{first_line + int(start[wrong.argmax()])}", message, hint)

        told = f"starts a number of lines of one layer that is no multiple of top-{top_k}"
        refuse_runs(lines % top_k != 0, told, "is top_k right?")
        opens = np.concatenate([[True], run_layer[1:] <= run_layer[:-1]])  # the first run of each micro-batch
        batch, tokens, last = np.cumsum(opens) - 1, lines // top_k, int(layer.max())
        tokens_of_batch = tokens[opens]
        missing = tokens_of_batch[batch] - tokens
        out_of_turn = run_layer != np.arange(len(start)) - np.flatnonzero(opens)[batch]
        uneven = (missing < 0) | ((missing > 0) & (run_layer != last))
        cut = np.append(opens[1:], True) & (run_layer < last - 1)
        told = "breaks the order of layers and tokens in its micro-batch"
        refuse_runs(out_of_turn | uneven | cut, told, "the file is cut, or two runs wrote it")
        first_token = (np.cumsum(tokens_of_batch) - tokens_of_batch)[batch] + missing
        token = np.repeat(first_token - start // top_k, tokens) + np.arange(len(layer) // top_k)
        return cls(token, np.repeat(run_layer, tokens), int(tokens_of_batch.sum()))

    def scatter(self, expert: Array, num_layers: int, top_k: int) -> Array:
        """The experts by token; -1 where there is none. [tokens, layers, top_k]"""
        experts = np.full((self.num_tokens, num_layers, top_k), -1, np.int32)
        experts[self.token, self.layer] = expert.reshape(-1, top_k)
        return experts
