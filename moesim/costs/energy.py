"""Energy of a machine: ``E = sum over parts and states of P_state t_state / eta``.

t_state is how long a part was in a state, eta the power supply's efficiency. A part's power in a state is a share of
its thermal design power (TDP), since cards rarely say more:

- GPU: arithmetic at TDP; streaming memory less; launching and waiting at their clocks, little.
- CPU with its DRAM: computing experts at TDP; else one thread that drives the GPU.
- Drive: reading, and idle. Board and fans: a share of the rest.

Shares are assumed, as such parts are reported to draw. Assumes that power follows the state at once, and no capping.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moesim.costs.part import Constant, card_constant
from moesim.hardware import GpuSpec, Kind, Node, weakest

#: Shares of a GPU's TDP by state, at its working clocks. Assumed.
GPU_SHARES = {"arithmetic": 0.95, "memory": 0.7, "launches": 0.4, "waiting": 0.25}
#: Shares of a CPU's TDP: experts on all cores, else one busy thread beside idle cores and DRAM. Assumed.
CPU_SHARES = {"experts": 1.0, "driving the GPU": 0.3}
#: Watts of a drive that reads, and that does not. Assumed: consumer and server NVMe drives.
DRIVE_WATTS = {"reading": 6.0, "idle": 1.5}
#: Watts of the board, fans and what else a machine of its own has. Assumed. A module of shared memory has none.
BOARD_WATTS = 25.0
#: What a power supply delivers of what it takes. Assumed: 80 PLUS Gold at half load.
SUPPLY_EFFICIENCY = 0.9
_SOURCE = "share of the TDP by state, moesim.costs.energy"


@dataclass(frozen=True)
class Draw:
    """A part's power by state, watts, and what it rests on. The last state is what it does when nothing else."""

    part: str
    watts: Mapping[str, float]
    constants: tuple[Constant, ...]


@dataclass(frozen=True)
class Spent:
    """Energy of a part in one state."""

    part: str
    state: str
    seconds: float
    watts: float
    joules: float
    kind: Kind


def gpu_draw(gpu: GpuSpec) -> Draw | None:
    """A GPU's power; None where its card has no TDP."""
    if gpu.tdp is None:
        return None
    watts = {state: share * gpu.tdp.value for state, share in GPU_SHARES.items()}
    return Draw("GPU", watts, (card_constant("gpu.tdp", gpu.tdp, "W"), *_shares("gpu", GPU_SHARES)))


def draws(node: Node) -> tuple[list[Draw], list[str]]:
    """The parts of a machine with one GPU of its node, and in words which parts' cards lack what it takes.

    A unified machine is one module, whose power its GPU's card states.
    """
    lacking, found = [], []
    gpu = gpu_draw(node.gpu)
    if gpu is None:
        lacking.append(f"hardware card {node.gpu.name} has no tdp")
    else:
        found.append(gpu)
    if not node.gpu.unified_memory:
        if node.cpu.tdp is None:
            lacking.append(f"hardware card {node.cpu.name} has no tdp")
        else:
            share = node.cpu.tdp.value / node.gpu_count
            watts = {state: part * share for state, part in CPU_SHARES.items()}
            constants = (card_constant("cpu.tdp", node.cpu.tdp, "W"), *_shares("cpu", CPU_SHARES))
            found.append(Draw("CPU and DRAM", watts, constants))
        found.append(Draw("board and fans", {"always": BOARD_WATTS}, _watts("board", {"always": BOARD_WATTS})))
    if node.storage is not None:
        found.append(Draw("drive", DRIVE_WATTS, _watts("drive", DRIVE_WATTS)))
    return found, lacking


def spent(parts: Sequence[Draw], duration_s: float, busy_s: Mapping[str, Mapping[str, float]]) -> list[Spent]:
    """Joules at the wall socket, by part and state.

    Args:
        busy_s: part -> state -> seconds; the rest of the time a part is in its last state.
    """
    rows = []
    for draw in parts:
        states = dict(busy_s.get(draw.part, {}))
        *_, rest = draw.watts
        states[rest] = states.get(rest, 0.0) + max(0.0, duration_s - sum(states.values()))
        kind = weakest(constant.kind for constant in draw.constants)
        for state, seconds in states.items():
            watts = draw.watts[state] / SUPPLY_EFFICIENCY
            rows.append(Spent(draw.part, state, seconds, watts, watts * seconds, kind))
    return [row for row in rows if row.seconds > 0]


def _shares(part: str, shares: Mapping[str, float]) -> tuple[Constant, ...]:
    return tuple(Constant(f"{part}.{state}", share, "1", _SOURCE, "assumed") for state, share in shares.items())


def _watts(part: str, watts: Mapping[str, float]) -> tuple[Constant, ...]:
    source = "moesim.costs.energy"
    return tuple(Constant(f"{part}.{state}", each, "W", source, "assumed") for state, each in watts.items())
