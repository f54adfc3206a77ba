"""The frozen input of the expert-parallel engine: every duration of a cluster's steps, evaluated into arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Sync = Literal["barrier", "one-sided"]


@dataclass(frozen=True)
class Overlap:
    """What may run beside what.

    Attributes:
        two_batches: the step's tokens are two batches; while one computes, the other communicates.
        pipeline: chunks that dispatch, experts and combine of a layer are cut into.
        shared_beside_dispatch: shared experts run while dispatch is under way.
        separate_links: NVLink and network are streams of their own.
        fused: tiles flow through dispatch, experts and combine inside of one kernel.
    """

    two_batches: bool = False
    pipeline: int = 1
    shared_beside_dispatch: bool = False
    separate_links: bool = False
    fused: bool = False

    @property
    def parts(self) -> int:
        """Parts of a step's tokens that are counted and priced on their own."""
        return 2 if self.two_batches else self.pipeline


@dataclass(frozen=True)
class Moved:
    """An exchange: seconds until each GPU has sent and has received. [passes, parts, layers, gpus] each"""

    sent_s: Floats
    received_s: Floats


@dataclass(frozen=True)
class ParallelSetup:
    """Passes (microbatches of steps) through one pipeline stage, or through all layers.

    Attributes:
        before_s: a part's attention, router and dense layers before each MoE layer. [passes, parts, layers, gpus]
        after_s: what follows the last one, the output head included. [passes, parts, gpus]
        collective_s: tensor-parallel collectives before each layer. [passes, parts, layers]
        shared_s, experts_s: of the GPU. [passes, parts, layers, gpus]
        shard_s: gathering and scattering between the GPUs that share an expert's width. [passes, parts, layers]
        dispatch, combine: exchanges; of a hierarchical one first within, then between nodes (combine: reversed).
        tiles: pieces that flow through a fused kernel. [passes, parts, layers, gpus]
        tensor_group: GPUs that share attention, or an expert's width, and wait for each other.
        gather_s: what all GPUs exchange at a pass's end. [passes]
        fetch_s: experts that a GPU must bring from host memory, on its link; None: all are there. [as experts_s]
        last_s: of ``experts_s``, what the last fetched expert takes. [as experts_s]
    """

    before_s: Floats
    after_s: Floats
    collective_s: Floats
    shared_s: Floats
    experts_s: Floats
    shard_s: Floats
    dispatch: tuple[Moved, ...]
    combine: tuple[Moved, ...]
    tiles: Floats
    sync: Sync
    overlap: Overlap
    tensor_group: int = 1
    gather_s: Floats | None = None
    fetch_s: Floats | None = None
    last_s: Floats | None = None

    @property
    def num_passes(self) -> int:
        """Passes through the stage."""
        return int(self.before_s.shape[0])

    @property
    def num_layers(self) -> int:
        """MoE layers of the stage."""
        return int(self.before_s.shape[2])

    @property
    def num_gpus(self) -> int:
        """GPUs of the stage."""
        return int(self.before_s.shape[3])
