"""Passes through the layers of an expert-parallel stage: operations in issue order on streams, all GPUs at once.

Each GPU has a compute stream, one for exchanges (two where NVLink and network are apart), and its link to host memory
where experts are offloaded. An operation starts when
its stream is free and what it waits for is done. A *barrier* exchange starts when the last GPU is ready and ends for
all together; a *one-sided* one starts on each GPU by itself, and a receiver is done when the slowest sender's writes
are in. Every array is [passes, gpus]: passes don't depend on each other, so they run side by side.

What a GPU waits for is charged to the operation that its next computation waited for; the part of it before the last
GPU had come to the exchange, and the wait at the pass's end, is *waiting for slower GPUs*.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from moesim.setup.parallel import Moved, ParallelSetup

Floats = NDArray[np.float64]
COMPUTE, EXCHANGE, NETWORK, HOST = "compute", "exchange", "network", "host link"
SLOWER, FETCHED, GATHERED = "slower GPUs", "experts from host memory", "gathering new context"
SHARDS = "expert shards"


@dataclass(frozen=True)
class Span:
    """An operation of one pass on all GPUs: when each starts and ends. [gpus] each"""

    name: str
    stream: str
    layer: int
    part: int
    start_s: Floats
    end_s: Floats


@dataclass(frozen=True)
class ParallelOutcome:
    """The record of a stage.

    Attributes:
        pass_s: seconds of each pass. [passes]
        busy_s: what each GPU computed. [passes, gpus]
        waits_s: what its compute stream waited for, by cause; with ``busy_s`` they add up to ``pass_s``.
        exchange_s: what each kind of exchange took on its stream, waiting included, by name. [passes, gpus]
        layer_exchange_s: each layer's dispatch and combine, from when the last GPU is ready. [passes, layers]
        spans: operations of the first pass, in issue order.
    """

    pass_s: Floats
    busy_s: Floats
    waits_s: dict[str, Floats]
    exchange_s: dict[str, Floats]
    layer_exchange_s: dict[str, Floats]
    spans: list[Span]


@dataclass(frozen=True)
class _Done:
    """When an operation began and ended, and when the last GPU had come to it; [passes, gpus] each.

    Attributes:
        before: what it followed, where that was an exchange as well: whoever waits for it waited for both.
    """

    name: str
    start: Floats
    end: Floats
    all_ready: Floats
    before: _Done | None = None


@dataclass
class _Streams:
    """Where each stream of each GPU stands, and what was waited for."""

    setup: ParallelSetup
    free: dict[str, Floats] = field(default_factory=dict)
    busy: Floats = field(default_factory=lambda: np.zeros(0))
    waits: dict[str, Floats] = field(default_factory=dict)
    exchange: dict[str, Floats] = field(default_factory=dict)
    layer_exchange: dict[str, Floats] = field(default_factory=dict)
    spans: list[Span] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.shape = (self.setup.num_passes, self.setup.num_gpus)
        self.free = {stream: np.zeros(self.shape) for stream in (COMPUTE, EXCHANGE, NETWORK, HOST)}
        self.busy = np.zeros(self.shape)

    def compute(self, name: str, seconds: Floats, after: _Done | None, layer: int, part: int) -> _Done:
        """A computation, once ``after`` is done."""
        free = self.free[COMPUTE]
        start = free if after is None else np.maximum(free, after.end)
        if after is not None:
            self._charge(after, start - free)
        end = start + seconds
        self.free[COMPUTE] = end
        self.busy = self.busy + seconds
        return self._note(_Done(name, start, end, start), COMPUTE, layer, part)

    def fused(self, name: str, seconds: Floats, after: _Done, tiles: Floats, layer: int, part: int) -> _Done:
        """A computation that starts with the first tile of ``after`` and ends a tile after its last."""
        free = self.free[COMPUTE]
        first = np.maximum(free, after.start + (after.end - after.start) / tiles)
        end = np.maximum(first + seconds, after.end + seconds / tiles)
        slower = np.clip(after.all_ready - free, 0.0, first - free)
        self._wait(SLOWER, slower)
        self._wait(after.name, (end - free) - seconds - slower)
        self.free[COMPUTE] = end
        self.busy = self.busy + seconds
        return self._note(_Done(name, first, end, first), COMPUTE, layer, part)

    def fetched(
        self, name: str, seconds: Floats, fetch: Floats, last: Floats, after: _Done, at: tuple[int, int]
    ) -> _Done:
        """A computation beside the transfer of experts that are missing, asked for once ``after`` is done.

        ``end = max(start + seconds, transfer's end + last)``: experts that are there first, what arrives last at last.
        """
        begin = np.maximum(self.free[HOST], after.end)
        self.free[HOST] = np.where(fetch > 0, begin + fetch, self.free[HOST])
        self._note(_Done(FETCHED, begin, self.free[HOST], begin), HOST, *at)
        done = self.compute(name, seconds, after, *at)
        end = np.where(fetch > 0, np.maximum(done.end, self.free[HOST] + last), done.end)
        self._wait(FETCHED, end - done.end)
        self.free[COMPUTE] = end
        return _Done(name, done.start, end, done.start)

    def sharded(self, name: str, seconds: Floats, after: _Done, layer: int, part: int) -> _Done:
        """A collective among the GPUs that share experts, on the stream for exchanges: other chunks go on computing.

        Args:
            seconds: [passes]
        """
        ready = np.maximum(self.free[EXCHANGE], after.end)
        group = max(self.setup.tensor_group, 1)
        start, came = (
            np.repeat(times.reshape(self.shape[0], -1, group).max(axis=2), group, axis=1)
            for times in (ready, after.end)
        )
        end = start + seconds[:, None]
        self.free[EXCHANGE] = end
        self._took(name, layer, end - start, seconds)
        return self._note(_Done(name, start, end, came, self._communicated(after)), EXCHANGE, layer, part)

    def exchanged(self, name: str, moved: Moved, stream: str, after: _Done, layer: int, part: int) -> _Done:
        """An exchange among all GPUs, once ``after`` is done on them."""
        sent, received = moved.sent_s[:, part, layer], moved.received_s[:, part, layer]
        if self.setup.overlap.fused and name == "combine":
            return self._streamed(name, moved, stream, after, layer, part)
        ready = np.maximum(self.free[stream], after.end)
        last = np.broadcast_to(ready.max(axis=1, keepdims=True), self.shape)
        if self.setup.sync == "barrier":
            whole = np.maximum(sent, received).max(axis=1, keepdims=True)
            start, end = last, np.broadcast_to(last + whole, self.shape)
        else:
            arrived = (ready + sent).max(axis=1, keepdims=True)
            own = ready.min(axis=1, keepdims=True) + received
            start, end = ready, np.maximum(np.maximum(arrived, own), ready)
        self.free[stream] = end
        self._took(name, layer, end - start, (end - last).max(axis=1))
        came = np.broadcast_to(after.end.max(axis=1, keepdims=True), self.shape)
        return self._note(_Done(name, start, end, came, self._communicated(after)), stream, layer, part)

    def _streamed(self, name: str, moved: Moved, stream: str, after: _Done, layer: int, part: int) -> _Done:
        """A combine that sends each tile when it is computed: its last tile leaves after the computation's end."""
        sent, received = moved.sent_s[:, part, layer], moved.received_s[:, part, layer]
        tiles = self.setup.tiles[:, part, layer]
        begin = np.maximum(self.free[stream], after.start)
        left = np.maximum(begin + sent, after.end + sent / tiles).max(axis=1, keepdims=True)
        end = np.maximum(left, begin.min(axis=1, keepdims=True) + received)
        last = np.broadcast_to(after.end.max(axis=1, keepdims=True), self.shape)
        self.free[stream] = end
        self._took(name, layer, end - begin, (end - last).max(axis=1))
        return self._note(_Done(name, begin, end, np.minimum(last, end)), stream, layer, part)

    def grouped(self, name: str, seconds: Floats, after: _Done, layer: int, part: int) -> _Done:
        """A collective among the GPUs that share attention (or an expert's width), which compute nothing meanwhile.

        Args:
            seconds: [passes]
        """
        free = self.free[COMPUTE]
        ready = np.maximum(free, after.end)
        group = max(self.setup.tensor_group, 1)
        last = ready.reshape(self.shape[0], -1, group).max(axis=2)
        start = np.repeat(last, group, axis=1)
        end = start + seconds[:, None]
        self._charge(after, np.maximum(after.end - free, 0.0))
        self._wait(SLOWER, start - ready)
        self._wait(name, end - start)
        self.free[COMPUTE] = end
        return self._note(_Done(name, start, end, start), COMPUTE, layer, part)

    def finish(self) -> ParallelOutcome:
        """All GPUs wait for the slowest at the end of a pass, and gather what all must know."""
        free = self.free[COMPUTE]
        end = free.max(axis=1)
        self._wait(SLOWER, end[:, None] - free)
        if self.setup.gather_s is not None:
            self._wait(GATHERED, np.broadcast_to(self.setup.gather_s[:, None], self.shape))
            end = end + self.setup.gather_s
        return ParallelOutcome(end, self.busy, self.waits, self.exchange, self.layer_exchange, self.spans)

    def _took(self, name: str, layer: int, on_stream: Floats, since_ready: Floats) -> None:
        """An exchange's time: on each GPU's stream [passes, gpus], and from when its last GPU was ready [passes]."""
        self.exchange[name] = self.exchange.get(name, np.zeros(self.shape)) + on_stream
        taken = self.layer_exchange.setdefault(name, np.zeros((self.shape[0], self.setup.num_layers)))
        taken[:, layer] += since_ready

    def _communicated(self, done: _Done) -> _Done | None:
        """The operation, if it was an exchange."""
        return done if done.name in self.exchange else None

    def _charge(self, after: _Done, gap: Floats) -> None:
        """What each GPU's compute stream, free now, waits for until ``after`` is done.

        Until the last GPU had come: for slower GPUs; until an exchange before this one had ended: for that one.
        """
        free = self.free[COMPUTE]
        if after.before is not None:
            earlier = np.clip(after.before.end - free, 0.0, gap)
            self._charge(after.before, earlier)
            slower = np.clip(after.all_ready - free, earlier, gap) - earlier
            gap = gap - earlier
        else:
            slower = np.clip(after.all_ready - free, 0.0, gap)
        self._wait(SLOWER, slower)
        self._wait(after.name, gap - slower)

    def _wait(self, cause: str, seconds: Floats) -> None:
        self.waits[cause] = self.waits.get(cause, np.zeros(self.shape)) + seconds

    def _note(self, done: _Done, stream: str, layer: int, part: int) -> _Done:
        self.spans.append(Span(done.name, stream, layer, part, done.start[0], done.end[0]))
        return done


def simulate_parallel(setup: ParallelSetup) -> ParallelOutcome:
    """Run all passes of a stage."""
    streams = _Streams(setup)
    if setup.overlap.two_batches:
        _two_batches(streams)
    else:
        _pipelined(streams)
    return streams.finish()


def _pipelined(streams: _Streams) -> None:
    """Attention for all tokens, then chunks through dispatch, experts and combine, each exchange as soon as it may."""
    setup = streams.setup
    done: _Done | None = None
    for layer in range(setup.num_layers):
        attention = _attention(streams, setup.before_s[:, :, layer].sum(axis=1), done, layer, 0)
        done = _moe(streams, attention, layer, range(setup.overlap.parts))
    streams.compute("output head", setup.after_s.sum(axis=1), done, setup.num_layers - 1, 0)


def _moe(streams: _Streams, attention: _Done, layer: int, parts: range) -> _Done:
    """A layer's experts, chunk by chunk; done when the last chunk is combined."""
    setup = streams.setup
    shared = setup.shared_s[:, :, layer].sum(axis=1)
    beside = setup.overlap.shared_beside_dispatch
    if not beside:
        attention = _shared(streams, shared, attention, layer)
    arrived = [_arrive(streams, attention, layer, part) for part in parts]
    if beside:
        _shared(streams, shared, None, layer)
    combined = attention
    for part in parts:
        computed = _experts(streams, arrived[part], layer, part)
        combined = _exchange(streams, "combine", setup.combine, computed, layer, part)
    return combined


def _two_batches(streams: _Streams) -> None:
    """Batches A and B in turn, so that one computes while the other communicates.

    Issue order of each layer: attention A, dispatch A, attention B, dispatch B, experts A, combine A, experts B,
    combine B; shared experts go with attention, or beside the own dispatch.
    """
    setup = streams.setup
    done: list[_Done | None] = [None, None]
    for layer in range(setup.num_layers):
        arrived: list[_Done] = []
        for part in (0, 1):
            attention = _attention(streams, setup.before_s[:, part, layer], done[part], layer, part)
            shared = setup.shared_s[:, part, layer]
            if setup.overlap.shared_beside_dispatch:
                arrived.append(_arrive(streams, attention, layer, part))
                _shared(streams, shared, None, layer, part)
            else:
                attention = _shared(streams, shared, attention, layer, part)
                arrived.append(_arrive(streams, attention, layer, part))
        for part in (0, 1):
            computed = _experts(streams, arrived[part], layer, part)
            done[part] = _exchange(streams, "combine", setup.combine, computed, layer, part)
    for part in (0, 1):
        streams.compute("output head", setup.after_s[:, part], done[part], setup.num_layers - 1, part)


def _attention(streams: _Streams, seconds: Floats, after: _Done | None, layer: int, part: int) -> _Done:
    done = streams.compute("attention and dense", seconds, after, layer, part)
    together = streams.setup.collective_s[:, part, layer]
    if not together.any():
        return done
    if not streams.setup.overlap.two_batches:
        together = streams.setup.collective_s[:, :, layer].sum(axis=1)
    return streams.grouped("tensor-parallel collectives", together, done, layer, part)


def _shared(streams: _Streams, seconds: Floats, after: _Done | None, layer: int, part: int = 0) -> _Done:
    if not seconds.any() and after is not None:
        return after
    return streams.compute("shared experts", seconds, after, layer, part)


def _experts(streams: _Streams, arrived: _Done, layer: int, part: int) -> _Done:
    setup = streams.setup
    seconds = setup.experts_s[:, part, layer]
    if setup.overlap.fused:
        return streams.fused("routed experts", seconds, arrived, setup.tiles[:, part, layer], layer, part)
    if setup.fetch_s is not None and setup.last_s is not None:
        at = (layer, part)
        fetch, last = setup.fetch_s[:, part, layer], setup.last_s[:, part, layer]
        computed = streams.fetched("routed experts", seconds, fetch, last, arrived, at)
    else:
        computed = streams.compute("routed experts", seconds, arrived, layer, part)
    return _shards(streams, computed, layer, part)


def _arrive(streams: _Streams, attention: _Done, layer: int, part: int) -> _Done:
    """Dispatch to the ranks, then to every GPU of a rank."""
    arrived = _exchange(streams, "dispatch", streams.setup.dispatch, attention, layer, part)
    return _shards(streams, arrived, layer, part)


def _shards(streams: _Streams, after: _Done, layer: int, part: int) -> _Done:
    """Half of what GPUs that share experts exchange: gathering before the products, or scattering behind them."""
    between = streams.setup.shard_s[:, part, layer]
    return streams.sharded(SHARDS, between / 2, after, layer, part) if between.any() else after


def _exchange(streams: _Streams, name: str, phases: tuple[Moved, ...], after: _Done, layer: int, part: int) -> _Done:
    """All phases of an exchange, one after the other, each on its stream."""
    for moved, stream in zip(phases, _phase_streams(streams.setup, name, len(phases)), strict=True):
        after = streams.exchanged(name, moved, stream, after, layer, part)
    return after


def _phase_streams(setup: ParallelSetup, name: str, phases: int) -> Iterator[str]:
    """NVLink's stream or the network's: of two phases the inner one, of a single phase the one that shards leave."""
    order: Callable[[int], bool] = (lambda phase: phase == 0) if name == "dispatch" else (lambda phase: phase == 1)
    for phase in range(phases):
        within = not setup.shard_s.any() if phases == 1 else order(phase)
        yield EXCHANGE if within or not setup.overlap.separate_links else NETWORK
