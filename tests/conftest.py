"""Traces that tests build by hand, and where imported ones lie."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moesim.traces import RoutingTrace, TraceCard, expert_dtype

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"


@pytest.fixture
def shared_data() -> Path:
    """The folder of other projects' published data; the test is skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("needs ../shared/data (other projects' published traces), which is not there")
    return SHARED


@pytest.fixture
def make_trace():
    """A function: experts as nested lists [tokens][layers][top_k], everything else optional, to a trace."""

    def make(experts: Any, num_experts: int = 4, card: dict[str, Any] | None = None, **columns: Any) -> RoutingTrace:
        ids = np.asarray(experts, expert_dtype(num_experts))
        tokens, layers, top_k = ids.shape
        shape = {"num_experts": num_experts, "top_k": top_k, "moe_layer_indices": list(range(layers))}
        fields = {"name": "tiny", "model": "none", "origin": "captured", **shape, **(card or {})}
        columns = {name: column if name == "lookahead" else np.asarray(column) for name, column in columns.items()}
        defaults = {
            "request": np.zeros(tokens, np.int32),
            "position": np.arange(tokens, dtype=np.int32),
            "phase": np.ones(tokens, np.uint8),
        }
        return RoutingTrace(card=TraceCard.model_validate(fields), experts=ids, **{**defaults, **columns})

    return make


@pytest.fixture
def full_trace(make_trace) -> RoutingTrace:
    """Three tokens of two requests, two layers, top-2 of 4, with every optional column; 255 = no expert."""
    experts = [[[0, 1], [2, 3]], [[1, 2], [255, 255]], [[3, 0], [1, 255]]]
    ahead = [[[2, 1], [255, 255]], [[0, 3], [255, 255]], [[1, 0], [255, 255]]]
    return make_trace(
        experts,
        card={"domains": [{"name": "code"}], "expert_bytes": [100, 200]},
        request=np.array([7, 7, 3], np.int32),
        position=np.array([0, 1, 5], np.int32),
        phase=np.array([0, 1, 1], np.uint8),
        weights=np.array([[[0.5, 0.5], [0.75, 0.25]], [[1, 0], [0, 0]], [[0.5, 0.5], [1, 0]]], np.float16),
        lookahead={1: np.array(ahead, np.uint8)},
        recorded=np.array([[True, True], [True, False], [True, True]]),
        step=np.array([0, 1, 1], np.int32),
        domain=np.array([0, 0, -1], np.int16),
        token_id=np.array([5, 6, 7], np.int32),
    )
