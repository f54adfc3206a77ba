"""What each GPU computes in each pass: the parts of a resident model's forward pass, laid out over layers and GPUs.

Layers whose attention differs (windows, state mixers) get the mean of their stage's model: the sum over layers is
exact.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from moesim.costs.kernels import Software
from moesim.costs.parallel import Parallel
from moesim.costs.part import Basis, Constant, Part, card_constant
from moesim.costs.resident import Resident
from moesim.models import ModelSpec
from moesim.scenario.parallel.batch import Batch
from moesim.scenario.parallel.parts import ParallelParts, layers_of_stage
from moesim.scenario.parallel.schema import ParallelSpec

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
#: Parts of ``Resident.dense`` that are not in every layer.
_MOE_LAYERS, _DENSE_LAYERS = ("router", "top-k", "shared experts"), ("dense FFN",)
LAUNCHES = "further launches"


@dataclass(frozen=True)
class Priced:
    """Seconds of one stage.

    Attributes:
        before_s: before each MoE layer. [passes, parts, layers, replicas]
        after_s: behind the last one. [passes, parts, replicas]
        shared_s: shared experts of each layer. [passes, parts, 1 or layers, replicas]
        collective_s: tensor-parallel collectives before each MoE layer. [passes, parts, layers]
        parts: what was priced, each with its seconds over a whole pass. [passes, parts, replicas]
    """

    before_s: Floats
    after_s: Floats
    shared_s: Floats
    collective_s: Floats
    parts: list[Part] = field(default_factory=list)


class Prices:
    """Prices passes of a parallel scenario.

    Attributes:
        resident: prices of one attention replica.
    """

    def __init__(self, parts: ParallelParts, parallel: ParallelSpec, batch: Batch):
        self.parts, self.parallel, self.batch = parts, parallel, batch
        degrees = parts.degrees
        self.resident = Resident(
            parts.model, parts.precisions, parts.gpu, Parallel(tp=degrees.tp), Software(parallel.engine), parts.fits
        )
        self.microbatches = parallel.batch.microbatches
        self.attention_parts = 2 if parallel.overlap.two_batches else 1
        self.whole = parallel.batch.scope == "model"
        self.tokens = degrees.tp * parallel.batch.tokens_per_gpu // (self.microbatches * self.attention_parts)
        self.passes = parallel.batch.steps * self.microbatches

    def stage(self, number: int, held: Floats | None = None) -> Priced:
        """All computation of a stage but its routed experts.

        Args:
            held: tokens of each GPU before each layer, where they differ. [passes, parts, layers, gpus]
        """
        model, stages = self.parts.model, self.parts.degrees.pp
        layers, moe = layers_of_stage(model, number, stages)
        shape = (self.passes, self.attention_parts, 1 if held is None else len(moe), self.parts.degrees.dp)
        gap, dense_gap, rest, dense_rest = (np.array(value) for value in _gaps(model, layers, moe))
        per_layer, per_moe, per_dense, shared = (np.zeros(shape) for _ in range(4))
        priced: list[Part] = []
        for part in self._attention_and_dense(shape, held):
            seconds = np.broadcast_to(part.seconds, shape)
            if part.name in _MOE_LAYERS:
                of, share = (shared if part.name == "shared experts" else per_moe), len(moe) / model.num_moe_layers
                of += seconds / model.num_moe_layers
            elif not self.whole:
                continue
            elif part.name in _DENSE_LAYERS:
                num_dense = model.num_layers - model.num_moe_layers
                per_dense += seconds / num_dense
                share = (dense_gap.sum() + dense_rest) / num_dense
            else:
                per_layer += seconds / model.num_layers
                share = len(layers) / model.num_layers
            priced.append(_over_layers(part.times(share), shape))
        launches = self._launches(shape)
        per_moe = per_moe + launches.seconds
        priced += [_over_layers(launches.times(len(moe)), shape)] if self.parallel.launches else []
        before = per_layer * gap[:, None] + per_dense * dense_gap[:, None] + per_moe
        after = per_layer[:, :, -1] * rest + per_dense[:, :, -1] * dense_rest
        if number == stages - 1 and self.whole:
            head = self.resident.head(np.full(after.shape, float(self._sequences())))
            priced += head
            after = after + sum((part.seconds for part in head), start=np.zeros(after.shape))
        return Priced(before, after, shared, self._collectives((shape[0], shape[1]), gap), priced)

    def _attention_and_dense(self, shape: tuple[int, ...], held: Floats | None) -> list[Part]:
        """Of all layers. [passes, parts, 1 or layers, replicas] or less"""
        count = np.full(shape, float(self.tokens)) if held is None else held
        resident, wanted = self.resident, self.parallel.batch
        if wanted.phase == "prefill":
            requests = self._requests()[:, :, None]
            contexts = resident.even_contexts(prefilling=requests, prefill_tokens=count)
        elif wanted.context is not None:
            contexts = resident.even_contexts(decoding=count, decode_context=count * wanted.context)
        elif held is None:
            contexts = resident.contexts(decode=np.asarray(self.parts.trace.position)[self.rows()][:, :, None] + 1)
        else:
            mean = float(np.asarray(self.parts.trace.position)[self.batch.row].mean()) + 1
            contexts = resident.even_contexts(decoding=count, decode_context=count * mean)
        return [*resident.dense(count), *resident.attention(contexts)]

    def _launches(self, shape: tuple[int, ...]) -> Part:
        """Kernels of an MoE layer that are not priced with its parts: ``n launch``."""
        launch = card_constant("gpu.kernel_launch", self.parts.gpu.kernel_launch, "s")
        count = Constant("launches", float(self.parallel.launches), "1", "the scenario", "assumed")
        seconds = np.full(shape, launch.value * count.value)
        return Part(LAUNCHES, {"launch": seconds}, Basis("launch", "", "card", (launch, count)), np.zeros(shape, bool))

    def rows(self) -> Ints:
        """Rows of the trace that each attention replica holds. [passes, parts, replicas, tokens]"""
        return by_pass(self.batch.row, self.microbatches, self.attention_parts, self.parts.degrees.tp)

    def _requests(self) -> Floats:
        """Requests that each replica prefills in a pass. [passes, parts, replicas]"""
        request = np.sort(np.asarray(self.parts.trace.request)[self.rows()], axis=-1)
        return np.asarray(1.0 + (np.diff(request, axis=-1) != 0).sum(axis=-1))

    def _sequences(self) -> int:
        """Tokens that get an output: all that decode, one of a prefill's chunk."""
        return self.tokens if self.parallel.batch.phase == "decode" else 1

    def _collectives(self, shape: tuple[int, int], gap: Ints) -> Floats:
        """A reduce-scatter and an all-gather around attention, of each layer that lies before a MoE layer."""
        tp = self.parts.degrees.tp
        if tp == 1 or not self.whole:
            return np.zeros((*shape, len(gap)))
        num_bytes = 2.0 * self.parts.model.hidden_size * self.tokens
        kernels = self.resident.kernels
        both = sum(float(kernels.collective(name, num_bytes, tp).seconds) for name in ("reduce_scatter", "all_gather"))
        return np.broadcast_to(both * gap, (*shape, len(gap))).copy()


def _over_layers(part: Part, shape: tuple[int, ...]) -> Part:
    """A part of a whole pass, priced layer by layer: the mean over layers. [passes, parts, replicas]"""
    terms = {name: np.broadcast_to(value, shape).mean(axis=2) for name, value in part.terms.items()}
    return replace(part, terms=terms, extrapolated=np.asarray(np.broadcast_to(part.extrapolated, shape).any(axis=2)))


def by_pass(row: Ints, microbatches: int, parts: int, tp: int) -> Ints:
    """``[steps, gpus, tokens]`` as ``[steps * microbatches, parts, replicas, tokens of a replica's part]``."""
    steps, gpus, tokens = row.shape
    each = tokens // (microbatches * parts)
    split = row.reshape(steps, gpus // tp, tp, microbatches, parts, each)
    ordered = np.moveaxis(split, (3, 4), (1, 2))  # steps, microbatches, parts, replicas, tp, each
    return ordered.reshape(steps * microbatches, parts, gpus // tp, tp * each)


def _gaps(model: ModelSpec, layers: range, moe: Ints) -> tuple[list[int], list[int], int, int]:
    """Layers (and dense ones among them) from the last MoE layer's end to each MoE layer, and behind the last one."""
    is_moe = set(model.moe_layer_indices)
    gap, dense = [], []
    count = num_dense = 0
    for layer in layers:
        count += 1
        if layer in is_moe:
            gap.append(count)
            dense.append(num_dense)
            count = num_dense = 0
        else:
            num_dense += 1
    assert len(gap) == len(moe)
    return gap, dense, count, num_dense
