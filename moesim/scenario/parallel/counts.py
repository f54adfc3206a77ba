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
from moesim.scenario.parallel.parts import ParallelParts
from moesim.scenario.parallel.prices import by_pass
from moesim.scenario.parallel.schema import ParallelSpec
from moesim.setup.parallel import Moved
from moesim.setup.placement import Placement
from moesim.setup.traffic import Choice, Counter, Split, Traffic, balanced

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
#: Bytes of a value on the wire: fp8 has a scale of 4 bytes for each 128 values.
VALUE_BYTES = {"fp32": 4.0, "bf16": 2.0, "fp8": 1.0 + 4 / 128}
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


@dataclass(frozen=True)
class Phase:
    """A phase of an exchange: copies between GPUs. [gpus, gpus]"""

    items: Floats


class StageCounter:
    """Counts and prices the traffic of one stage.

    Args:
        placements: for each step, the placement it runs under, over all MoE layers of the model.
        moe_layers: the stage's, among the model's MoE layers.
    """

    def __init__(
        self,
        parts: ParallelParts,
        parallel: ParallelSpec,
        placements: list[Placement],
        moe_layers: Ints,
        first_gpu: int,
        flows: Flows | None = None,
    ):
        self.parts, self.parallel, self.placements, self.moe_layers = parts, parallel, placements, moe_layers
        self.homes = parts.homes()
        self.gpus, self.num_parts = self.homes.gpus, 2 if parallel.overlap.two_batches else parallel.overlap.pipeline
        self.ports = Ports(parts.topology, self.gpus, first_gpu)
        self.exchange = Exchange(parallel.exchange.kind, parts.topology, self.gpus, parts.fits)
        self.flows = flows
        model, batch = parts.model, parallel.batch
        self.tokens = batch.tokens_per_gpu // (batch.microbatches * self.num_parts)
        factor = parallel.capacity.factor
        self.capacity = None if factor is None else max(ceil(factor * self.tokens * model.top_k / model.num_experts), 1)
        self.bytes = {
            "dispatch": model.hidden_size * self._value_bytes(parallel.exchange.dispatch),
            "combine": model.hidden_size * VALUE_BYTES[parallel.exchange.combine],
        }

    def count(self, row: Ints) -> Counts:
        """The traffic of all passes.

        Args:
            row: rows of the trace. [steps, gpus, tokens]
        """
        passes = by_pass(row, self.parallel.batch.microbatches, self.num_parts, 1)
        shape = (len(passes), self.num_parts, len(self.moe_layers))
        gathering = _Gathering(self, shape)
        for number, held in enumerate(passes):
            placement = self.placements[number // self.parallel.batch.microbatches]
            counter = Counter(self.homes, placement, self._choice(), self.capacity)
            for part in range(self.num_parts):
                experts = np.asarray(self.parts.trace.experts)[held[part]]
                for place, layer in enumerate(self.moe_layers):
                    routed = self._experts(experts[:, :, layer])
                    traffic = counter.count(int(layer), routed, self._split(placement, int(layer)))
                    gathering.add((number, part, place), traffic, placement, int(layer))
        return gathering.counts()

    def phases(self, traffic: Traffic, layer: int, placement: Placement) -> list[Phase]:
        """What a dispatch sends, phase by phase; a combine sends the same back."""
        kind, gpus, local = self.exchange.kind, self.gpus, self.exchange.per_node
        items = (traffic.pairs if kind != "deepep-normal" else traffic.copies).astype(np.float64)
        if self.parallel.capacity.padded and self.capacity is not None:
            slots = placement.slots_on[layer].astype(np.float64)
            shards = self.homes.shards
            column = np.repeat(slots, shards)[None] * (np.arange(gpus)[:, None] % shards == np.arange(gpus) % shards)
            items = column * self.capacity
        if kind == "hierarchical" and gpus > local:
            return _hierarchical(items, local)
        if kind == "deepep-normal" and gpus > local:
            items = _forwarded(items, traffic.node_copies.astype(np.float64), local)
        return [Phase(_off_diagonal(items))]

    def _experts(self, experts: Ints) -> Ints:
        """Experts as counting takes them: -1 where there is none; in turn where the routing is balanced."""
        model = self.parts.model
        if self.parallel.batch.routing == "balanced":
            return balanced(self.tokens, self.gpus, model.top_k, model.num_experts)
        routed = experts.astype(np.int64)
        return np.where(routed == self.parts.trace.sentinel, -1, routed)

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
        self.items = np.zeros((gpus, gpus))
        self.link_bytes = np.zeros(len(stage.parts.topology.links))
        self.moved: dict[str, list[list[Floats]]] = {"dispatch": [], "combine": []}
        links = len(stage.parts.topology.links)
        self.first_busy = {name: np.zeros((*shape[1:], links)) for name in ("dispatch", "combine")}
        self.dropped = self.total = 0
        self.reached: list[float] = []
        self.worst, self.worst_bytes = np.zeros((gpus, gpus)), -1.0

    def add(self, at: tuple[int, int, int], traffic: Traffic, placement: Placement, layer: int) -> None:
        """One layer of one part of one pass."""
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
        self._exchanges(at, stage.phases(traffic, layer, placement), reached)

    def _exchanges(self, at: tuple[int, int, int], phases: list[Phase], reached: Floats) -> None:
        stage = self.stage
        for operation in ("dispatch", "combine"):
            ordered = phases if operation == "dispatch" else phases[::-1]
            columns = self.moved[operation]
            for number, phase in enumerate(ordered):
                items = phase.items if operation == "dispatch" else phase.items.T
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

    def _price(self, operation: str, items: Floats, loads: Floats, reached: Floats) -> Exchanged:
        stage, model = self.stage, self.stage.parts.model
        item_bytes = stage.bytes[operation]
        experts = model.num_experts + stage.parallel.redundant_experts
        tokens = np.full(stage.gpus, float(stage.tokens))
        sizes = Sizes(item_bytes, model.hidden_size, model.top_k, experts, tokens, reached)
        name: Literal["dispatch", "combine"] = "dispatch" if operation == "dispatch" else "combine"
        if stage.flows is not None:
            sent, received = stage.flows(items * item_bytes)
            start = stage.exchange.start_s(name, sizes)
            return Exchanged(sent + start, received + start)
        return stage.exchange.price(name, stage.ports.volume(loads), sizes)

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
        )


def _off_diagonal(items: Floats) -> Floats:
    """What stays on a GPU is not sent."""
    moved = items.copy()
    np.fill_diagonal(moved, 0.0)
    return moved


def _hierarchical(items: Floats, local: int) -> list[Phase]:
    """First within nodes to the GPU that has the receiver's place, then to the same place of other nodes."""
    gpus = len(items)
    nodes = gpus // local
    blocks = items.reshape(nodes, local, nodes, local)  # from (node, place) to (node, place)
    within = np.zeros((nodes, local, nodes, local))
    between = np.zeros((nodes, local, nodes, local))
    for node in range(nodes):
        within[node, :, node, :] = blocks[node].sum(axis=1)
    for place in range(local):
        between[:, place, :, place] = blocks[:, :, :, place].sum(axis=1)
    phases = (within.reshape(gpus, gpus), between.reshape(gpus, gpus))
    return [Phase(_off_diagonal(phase)) for phase in phases]


def _forwarded(copies: Floats, node_copies: Floats, local: int) -> Floats:
    """One copy to each remote node, to the GPU of the sender's place there, which hands copies on within the node."""
    gpus = len(copies)
    nodes = gpus // local
    blocks = copies.reshape(nodes, local, nodes, local)
    sent = np.zeros((nodes, local, nodes, local))
    to_node = node_copies.reshape(nodes, local, nodes)
    for place in range(local):
        sent[:, place, :, place] = to_node[:, place, :]
    own = np.arange(nodes)
    sent[own, :, own, :] = 0.0
    for node in range(nodes):  # handed on by place, whatever node it came from; within the own node straight
        sent[node, :, node, :] += blocks[:, :, node, :].sum(axis=0)
    return sent.reshape(gpus, gpus)
