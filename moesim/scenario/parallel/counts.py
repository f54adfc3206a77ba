"""Traffic of every pass, part and layer: who computes how much, and what the fullest links carry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from moesim.costs.all_to_all import Exchange, Exchanged, Sizes
from moesim.costs.ports import Ports
from moesim.policies.api import Policy
from moesim.scenario.parallel.batch import Batch
from moesim.scenario.parallel.parts import ParallelParts
from moesim.scenario.parallel.phases import forwarded, hierarchical, off_diagonal
from moesim.scenario.parallel.prices import by_pass
from moesim.scenario.parallel.schema import ParallelSpec
from moesim.setup.parallel import Moved
from moesim.setup.placement import Placement
from moesim.setup.traffic import Choice, Counter, Split, Traffic, balanced

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
#: Bytes of a value on the wire: fp8 has a scale of 4 bytes for each 128 values.
VALUE_BYTES = {"fp32": 4.0, "bf16": 2.0, "fp8": 1.0 + 4 / 128}
Operation = Literal["dispatch", "combine"]
#: Seconds until each GPU has sent and received, of flows between GPUs in bytes. Given to count with simulated flows.
Flows = Callable[[Floats], tuple[Floats, Floats]]


@dataclass(frozen=True)
class Counts:
    """One stage's traffic.

    Attributes:
        pairs, distinct: of each expert-parallel rank; with padding what it computes. [passes, parts, layers, ranks]
        routed: pairs of each rank that are real. [passes, parts, layers, ranks]
        dispatch, combine: phases of each exchange.
        items: copies of tokens that cross between GPUs, over all passes. [gpus, gpus]
        link_bytes: over each link, both exchanges. [links]
        dropped: pairs beyond the capacity; ``pairs_total``: before drops.
        reached: GPUs that hold an expert of a token, in the mean.
        gathered: tokens that the GPUs of a rank must share with each other. [passes, parts, layers]
        first_busy_s: how long each link moves bytes in the first pass, by exchange. [parts, layers, links] each
        worst: the dispatch with the most bytes over one link: its flows in bytes. [gpus, gpus]
        held: tokens on each GPU before each layer, where they don't return. [passes, parts, layers, gpus]
        used: whether a slot is used, where that is asked for. [passes, parts, layers, slots]
    """

    pairs: Floats
    distinct: Floats
    routed: Floats
    dispatch: tuple[Moved, ...]
    combine: tuple[Moved, ...]
    items: Floats
    link_bytes: Floats
    dropped: int
    pairs_total: int
    reached: float
    gathered: Floats
    first_busy_s: dict[str, Floats]
    worst: Floats
    held: Floats | None = None
    used: NDArray[np.bool_] | None = None


class StageCounter:
    """Counts and prices the traffic of one stage.

    Args:
        batch: the tokens of each step.
        placements: for each step, the placement it runs under, over all MoE layers of the model.
        moe_layers: the stage's, among the model's MoE layers.
        keep_used: whether the slots that are used are asked for.
    """

    def __init__(
        self,
        parts: ParallelParts,
        parallel: ParallelSpec,
        batch: Batch,
        placements: list[Placement],
        moe_layers: Ints,
        first_gpu: int,
        flows: Flows | None = None,
        keep_used: bool = False,
    ):
        self.parts, self.parallel, self.placements, self.moe_layers = parts, parallel, placements, moe_layers
        self.batch, self.homes, self.coherent = batch, parts.homes(), parallel.exchange.coherent is not None
        self.gpus, self.num_parts = self.homes.gpus, parallel.overlap.parts
        self.ports = Ports(parts.topology, self.gpus, first_gpu)
        self.exchange = Exchange(parallel.exchange.kind, parts.topology, self.gpus, parts.fits)
        self.flows, self.keep_used = flows, keep_used
        model = parts.model
        self.tokens = parallel.batch.tokens_per_gpu // (parallel.batch.microbatches * self.num_parts)
        factor = parallel.capacity.factor
        mean = self.tokens * model.top_k / model.num_experts
        self.limit = max(ceil(factor * mean), 1) if isinstance(factor, float) else None  # beyond it pairs are dropped
        self.capacity = self.limit  # of the layer at hand, for padding
        self.bytes = {
            "dispatch": model.hidden_size * self._value_bytes(parallel.exchange.dispatch),
            "combine": model.hidden_size * VALUE_BYTES[parallel.exchange.combine],
        }

    def count(self) -> Counts:
        """The traffic of all passes."""
        microbatches = self.parallel.batch.microbatches
        passes = by_pass(self.batch.row, microbatches, self.num_parts, 1)
        gathering = _Gathering(self, (len(passes), self.num_parts, len(self.moe_layers)))
        for number, held in enumerate(passes):
            step = number // microbatches
            counter = Counter(self.homes, self.placements[step], self._choice(), self.limit)
            for part in range(self.num_parts):
                self._count_part(gathering, counter, (number, part), held[part], step)
        return gathering.counts()

    def _count_part(self, gathering: _Gathering, counter: Counter, at: tuple[int, int], held: Ints, step: int) -> None:
        """All layers of one part of one pass; with coherent exchanges, tokens go on from where they were.

        Args:
            held: rows of each GPU. [gpus, tokens]
        """
        experts, placement, homes = np.asarray(self.parts.trace.experts)[held], counter.placement, None
        if self.coherent:
            homes = np.repeat(np.arange(self.gpus), self.tokens)
        for place, layer in enumerate(self.moe_layers.tolist()):
            routed = self._experts(experts[:, :, layer], step, layer)
            traffic = counter.count(layer, routed, self._split(placement, layer), homes)
            if self.parallel.capacity.factor == "dynamic":
                self.capacity = _fullest(routed, placement.num_experts)
            follows = None if homes is None else _first(traffic.target, homes)
            gathering.add((*at, place), traffic, placement, layer, homes, follows)
            homes = follows

    def phases(self, items: Floats, traffic: Traffic) -> list[Floats]:
        """Copies between GPUs in each phase of a dispatch; of a combine the same, transposed and last first."""
        kind, gpus, local = self.exchange.kind, self.gpus, self.exchange.per_node
        if kind == "hierarchical" and gpus > local:
            return hierarchical(items, local)
        if kind == "deepep-normal" and gpus > local:
            items = forwarded(items, traffic.node_copies.astype(np.float64), local)
        return [off_diagonal(items)]

    def items(self, traffic: Traffic, layer: int, placement: Placement) -> Floats:
        """Copies of tokens that a dispatch sends from GPU to GPU. [gpus, gpus]"""
        if not self.parallel.capacity.padded or self.capacity is None:
            return (traffic.pairs if self.exchange.kind != "deepep-normal" else traffic.copies).astype(np.float64)
        slots, shards, gpu = placement.slots_on[layer].astype(np.float64), self.homes.shards, np.arange(self.gpus)
        column = np.repeat(slots, shards)[None] * (gpu[:, None] % shards == gpu % shards)
        return np.asarray(column * self.capacity)

    def _experts(self, experts: Ints, step: int, layer: int) -> Ints:
        """Experts as counting takes them: -1 where there is none; in turn where the routing is balanced."""
        model = self.parts.model
        if self.parallel.batch.routing == "balanced":
            return balanced(self.tokens, self.gpus, model.top_k, model.num_experts)
        none, routed = experts == self.parts.trace.sentinel, experts.astype(np.int64)
        if self.batch.label is not None:
            routed = self.batch.label[step, layer][np.where(none, 0, routed)]
        return np.where(none, -1, routed)

    def _choice(self) -> Choice:
        return "split" if hasattr(self.parts.placement.module, "split") else self.parallel.replica

    def _split(self, placement: Placement, layer: int) -> Split | None:
        policy: Policy = self.parts.placement
        split = getattr(policy.module, "split", None)
        if split is None:
            return None
        return lambda load: split(policy.params, load, placement.logical[layer], placement.rank[layer])

    def _value_bytes(self, precision: str) -> float:
        """DeepEP's low-latency form was fitted to bytes without scales."""
        low = self.parallel.exchange.kind == "deepep-low-latency" and precision == "fp8"
        return 1.0 if low else VALUE_BYTES[precision]


class _Gathering:
    """Where the counts of all layers come together."""

    def __init__(self, stage: StageCounter, shape: tuple[int, int, int]):
        self.stage, self.shape = stage, shape
        gpus, ranks = stage.gpus, stage.homes.ranks
        self.pairs, self.distinct, self.routed = (np.zeros((*shape, ranks)) for _ in range(3))
        self.gathered = np.zeros(shape)
        self.held = np.full((*shape, gpus), float(stage.tokens))
        slots = stage.placements[0].num_slots
        self.used = np.zeros((*shape, slots), dtype=bool) if stage.keep_used else None
        self.items = np.zeros((gpus, gpus))
        self.link_bytes = np.zeros(len(stage.parts.topology.links))
        self.moved: dict[str, list[list[Floats]]] = {"dispatch": [], "combine": []}
        links = len(stage.parts.topology.links)
        self.first_busy = {name: np.zeros((*shape[1:], links)) for name in ("dispatch", "combine")}
        self.dropped = self.total = 0
        self.reached: list[float] = []
        self.worst, self.worst_bytes = np.zeros((gpus, gpus)), -1.0

    def add(
        self,
        at: tuple[int, int, int],
        traffic: Traffic,
        placement: Placement,
        layer: int,
        homes: Ints | None = None,
        follows: Ints | None = None,
    ) -> None:
        """One layer of one part of one pass.

        Args:
            homes, follows: where each token is before and behind the layer, where it does not return. [tokens]
        """
        stage, ranks = self.stage, self.stage.homes.ranks
        rank = placement.rank[layer]
        self.routed[at] = np.bincount(rank, weights=traffic.slot_pairs, minlength=ranks)
        if stage.parallel.capacity.padded and stage.capacity is not None:
            self.distinct[at] = placement.slots_on[layer]
            self.pairs[at] = placement.slots_on[layer] * (stage.capacity * stage.gpus)
        else:
            self.distinct[at] = np.bincount(rank, weights=traffic.slot_pairs > 0, minlength=ranks)
            self.pairs[at] = self.routed[at]
        self.dropped += traffic.dropped
        self.total += int(traffic.slot_pairs.sum()) + traffic.dropped
        reached = traffic.copies.sum(axis=1) / stage.tokens
        self.reached.append(float(reached.mean()))
        shards = stage.homes.shards
        received = traffic.pairs.sum(axis=0).reshape(-1, shards).sum(axis=1)
        self.gathered[at] = received.max()
        if self.used is not None:
            self.used[at] = traffic.slot_pairs > 0
        out = back = stage.phases(stage.items(traffic, layer, placement), traffic)
        if homes is not None and follows is not None:
            self.held[at] = np.bincount(homes, minlength=stage.gpus)
            back = (
                stage.phases(_to(follows, traffic.target, stage.gpus), traffic) if stage.parts.model.top_k > 1 else []
            )
        self._exchange("dispatch", at, out, reached)
        self._exchange("combine", at, [phase.T for phase in back[::-1]], reached)

    def _exchange(self, operation: Operation, at: tuple[int, int, int], phases: list[Floats], reached: Floats) -> None:
        stage, columns = self.stage, self.moved[operation]
        for number, items in enumerate(phases):
            loads = stage.ports.loads(items)
            self.link_bytes += loads * stage.bytes[operation]
            if at[0] == 0:
                self.first_busy[operation][at[1:]] += loads * stage.bytes[operation] / stage.ports.rate
            if operation == "dispatch":
                self.items += items
                self._remember(items, loads)
            if number == len(columns):
                columns.append([np.zeros((*self.shape, stage.gpus)), np.zeros((*self.shape, stage.gpus))])
            done = self._price(operation, items, loads, reached)
            columns[number][0][at], columns[number][1][at] = done.sent_s, done.received_s

    def _price(self, operation: Operation, items: Floats, loads: Floats, reached: Floats) -> Exchanged:
        stage, model = self.stage, self.stage.parts.model
        item_bytes = stage.bytes[operation]
        experts = model.num_experts + stage.parallel.redundant_experts
        tokens = np.full(stage.gpus, float(stage.tokens))
        sizes = Sizes(item_bytes, model.hidden_size, model.top_k, experts, tokens, reached)
        if stage.flows is not None:
            sent, received = stage.flows(items * item_bytes)
            start = stage.exchange.start_s(operation, sizes)
            return Exchanged(sent + start, received + start)
        return stage.exchange.price(operation, stage.ports.volume(loads), sizes)

    def _remember(self, items: Floats, loads: Floats) -> None:
        busiest = float((loads / self.stage.ports.rate).max(initial=0.0))
        if busiest > self.worst_bytes:
            self.worst, self.worst_bytes = items * self.stage.bytes["dispatch"], busiest

    def counts(self) -> Counts:
        """Everything."""
        moved = {name: tuple(Moved(*column) for column in columns) for name, columns in self.moved.items()}
        return Counts(
            pairs=self.pairs,
            distinct=self.distinct,
            routed=self.routed,
            dispatch=moved["dispatch"],
            combine=moved["combine"],
            items=self.items,
            link_bytes=self.link_bytes,
            dropped=self.dropped,
            pairs_total=self.total,
            reached=float(np.mean(self.reached)),
            gathered=self.gathered,
            first_busy_s=self.first_busy,
            worst=self.worst,
            held=self.held if self.stage.coherent else None,
            used=self.used,
        )


def _fullest(routed: Ints, experts: int) -> int:
    """The most pairs that one GPU sends to one expert, at least 1.

    Args:
        routed: [gpus, tokens, top_k]
    """
    gpu = np.arange(len(routed))[:, None, None]
    return max(int(np.bincount((gpu * experts + routed)[routed >= 0]).max(initial=0)), 1)


def _first(target: Ints, homes: Ints) -> Ints:
    """The GPU of each token's first expert; where it has none the token stays. [tokens]"""
    has = target >= 0
    first = target[np.arange(len(target)), np.argmax(has, axis=1)]
    return np.where(has.any(axis=1), first, homes)


def _to(homes: Ints, target: Ints, gpus: int) -> Floats:
    """Outputs of experts that cross to where each token goes on, as a dispatch would send them. [gpus, gpus]"""
    home = np.repeat(homes[:, None], target.shape[1], axis=1)
    code = (home * gpus + target)[target >= 0]
    return np.bincount(code, minlength=gpus**2).reshape(gpus, gpus).astype(np.float64)
