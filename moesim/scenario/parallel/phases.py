"""How an exchange moves copies of tokens: straight, in two dimensions, or once to each node and on from there."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def off_diagonal(items: Floats) -> Floats:
    """What stays on a GPU is not sent."""
    moved = items.copy()
    np.fill_diagonal(moved, 0.0)
    return moved


def hierarchical(items: Floats, local: int) -> list[Floats]:
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
    return [off_diagonal(phase) for phase in phases]


def forwarded(copies: Floats, node_copies: Floats, local: int) -> Floats:
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
