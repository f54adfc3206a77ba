"""The table ``moe_layer``: its rows as work of :mod:`moesim.costs.moe_layer`.

Routing follows from ``distribution``: from a table of workload statistics where the combination stands there, else
from :mod:`moesim.costs.workload`. The benchmark of two old releases gave very small batches of an expert-parallel rank
all their pairs (``OLD_RELEASES``; below :data:`FEW_PAIRS` pairs per expert, seen in what the rows took).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from moesim.costs.fitted import Floats
from moesim.costs.moe_kernels import FIXED_TILES, OLD_RELEASES, moe_stack, tuned_shapes
from moesim.costs.moe_layer import FORM, naive_seconds, uniform_distinct
from moesim.costs.workload import known, rank_share
from moesim.studies.measured.kinds import Group, Kind, Prepared, by_tokens, capability, card_of, positive
from moesim.studies.measured.table import Ints, Table, group_codes

FEW_PAIRS = 1 / 11
#: Token counts of one combination of distribution, experts, top-k and ranks for which draws are made: at most, at least
#: (of a table with very many combinations), and of all combinations together.
DRAWN_COUNTS, FEWEST_COUNTS, DRAWS_IN_ALL = 64, 6, 30_000
#: Arithmetic and bytes per weight (with scales of 128 x 128 blocks) of each dtype that the forms cover.
DTYPES = {"bfloat16": ("bf16", 2.0), "fp8_block": ("fp8", 1.0 + 4 / 128**2)}
COLUMNS = (
    *("gpu", "dtype", "hidden", "intermediate", "experts", "topk", "tp", "ep"),
    *("distribution", "tokens", "latency_us"),
)
_STATS = ("tokens", "experts", "topk", "ep")


def prepare(table: Table, stats: Table | None) -> Prepared:
    """The table's rows by GPU and stack."""
    prepared = Prepared()
    usable = _usable(table, prepared)
    share = _shares(table, stats, usable, prepared)
    gated = table.number("gated", 1.0)
    names = ("gpu", "backend", "kernel_source", "dtype", "distribution")
    merged: dict[tuple[str, str, str, str], list[Ints]] = {}
    for (gpu, backend, source, dtype, distribution), rows in table.groups(names):
        rows, card = rows[usable[rows]], card_of(gpu)
        if card is None:
            prepared.leave_out(f"gpu {gpu}: no hardware card", len(rows))
        elif dtype not in DTYPES:
            prepared.leave_out(f"dtype {dtype}", len(rows))
        elif not known(distribution):
            prepared.leave_out(f"distribution {distribution}", len(rows))
        else:
            stack = moe_stack(backend or "vllm", source, capability(card))
            if len(rows):
                merged.setdefault((gpu, card, stack, dtype), []).append(rows)
    for (gpu, card, stack, dtype), parts in sorted(merged.items()):
        rows = np.sort(np.concatenate(parts))
        work = _work(table, rows, share, gated, stack, card, dtype)
        suffix = "" if dtype == "bfloat16" else f" {dtype}"
        naive = {
            "roofline, all experts": lambda peaks, work=work: naive_seconds(work, peaks, work["local_experts"]),
            "roofline, uniform routing": lambda peaks, work=work: naive_seconds(work, peaks, uniform_distinct(work)),
            "roofline, distinct experts": lambda peaks, work=work: naive_seconds(work, peaks, work["distinct"]),
        }
        prepared.groups.append(Group(FORM, gpu, card, stack + suffix, rows, work, naive, DTYPES[dtype][0]))
    return prepared


def _usable(table: Table, prepared: Prepared) -> NDArray[np.bool_]:
    """Rows whose sizes a layer can have; the others are left out."""
    usable = positive(table, (*_STATS, "tp", "hidden", "intermediate"), prepared)
    experts, topk = table.number("experts", 1.0), table.number("topk", 1.0)
    ranks, slices = table.number("ep", 1.0), table.number("tp", 1.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        for reason, wrong in (
            ("topk above experts", topk > experts),
            ("experts do not divide over ep", experts % ranks != 0),
            ("intermediate below tp", table.number("intermediate", 1.0) < slices),
        ):
            prepared.leave_out(reason, int((usable & wrong).sum()))
            usable &= ~wrong
    return usable


def _work(
    table: Table, rows: Ints, share: Floats, gated: Floats, stack: str, card: str, dtype: str
) -> dict[str, Floats]:
    tokens, topk, experts = (table.number(name)[rows] for name in ("tokens", "topk", "experts"))
    ranks = table.number("ep", 1.0)[rows]
    slices = table.number("tp", 1.0)[rows]
    width, local = table.number("intermediate")[rows] / slices, experts / ranks
    pairs, distinct = share[rows, 0], share[rows, 1]
    if stack in OLD_RELEASES:
        few = (ranks > 1) & (tokens * topk < FEW_PAIRS * experts)
        pairs, distinct = np.where(few, tokens * topk, pairs), np.where(few, tokens * topk, distinct)
    fixed = stack in FIXED_TILES
    tuned = tuned_shapes(stack, capability(card))
    keys, count = group_codes([local, width])
    first = np.array([np.argmax(keys == key) for key in range(count)], dtype=np.int64)
    is_tuned = np.array([(int(local[row]), int(width[row])) in tuned for row in first])[keys]
    return {
        "tokens": tokens,
        "topk": topk,
        "hidden": table.number("hidden")[rows],
        "width": width,
        "matrices": np.where((gated[rows] > 0) | fixed, 3.0, 2.0),
        "local_experts": local,
        "ranks": ranks,
        "gpus": slices * ranks,
        "pairs": pairs,
        "distinct": distinct,
        "weight_bytes": np.full(len(rows), DTYPES[dtype][1]),
        "untuned": (fixed & ~is_tuned).astype(np.float64),
        "unpadded": np.full(len(rows), float("triton" in stack)),
    }


def _shares(table: Table, stats: Table | None, usable: NDArray[np.bool_], prepared: Prepared) -> Floats:
    """Pairs and distinct experts of each row's rank; notes where they are from. [rows, 2]"""
    share = np.ones((table.size, 2))
    looked_up = drawn = between = 0
    batches = list(_batches(table, usable))
    most = max(FEWEST_COUNTS, min(DRAWN_COUNTS, DRAWS_IN_ALL // max(len(batches), 1)))
    listed = {distribution: _listed(stats, distribution) for distribution, *_ in batches}
    for distribution, experts, topk, ranks, members in batches:
        counts, of_member = np.unique(table.number("tokens")[members].astype(np.int64), return_inverse=True)
        found = np.full((len(counts), 2), np.nan)
        for place, tokens in enumerate(counts.tolist()):
            found[place] = listed[distribution].get((tokens, experts, topk, ranks), np.nan)
        missing = np.flatnonzero(np.isnan(found[:, 0]))
        found[missing] = _drawn(distribution, counts[missing], experts, topk, ranks, most)
        of_drawn = int(np.isin(of_member, missing).sum())
        looked_up, drawn = looked_up + len(members) - of_drawn, drawn + of_drawn
        between += of_drawn if len(missing) > most else 0
        share[members] = found[of_member]
    prepared.notes.append(f"routing of {looked_up} rows from workload statistics, of {drawn} from moesim's own draws")
    if between:
        prepared.notes.append(f"of these, {between} between the token counts for which draws were made")
    return share


def _batches(table: Table, usable: NDArray[np.bool_]) -> Iterator[tuple[str, int, int, int, Ints]]:
    """Distribution, experts, top-k and ranks, and the rows that share them."""
    numbers = [table.number(name, 1.0) for name in _STATS[1:]]
    for (distribution,), rows in table.groups(("distribution",)):
        rows = rows[usable[rows]]
        if not known(distribution) or not len(rows):
            continue
        keys, count = group_codes([column[rows] for column in numbers])
        order = np.argsort(keys, kind="stable")
        bounds = np.searchsorted(keys[order], np.arange(count + 1))
        for start, end in pairwise(bounds.tolist()):
            members = rows[order[start:end]]
            experts, topk, ranks = (int(column[members[0]]) for column in numbers)
            yield distribution, experts, topk, ranks, members


def _drawn(distribution: str, counts: Ints, experts: int, topk: int, ranks: int, most: int) -> Floats:
    """Pairs and distinct experts for each token count; of many counts, some are drawn and the rest interpolated."""
    known_at = counts
    if len(counts) > most:
        grid = np.geomspace(counts[0], counts[-1], most).round().astype(np.int64)
        known_at = np.unique(np.concatenate([grid, [counts[0], counts[-1]]]))
    ranked = [rank_share(distribution, tokens, experts, topk, ranks) for tokens in known_at.tolist()]
    columns = np.array([[rank.pairs, rank.distinct] for rank in ranked]).reshape(-1, 2).T
    return np.stack([np.interp(counts, known_at, column) for column in columns], axis=1) if len(counts) else columns.T


def _listed(stats: Table | None, distribution: str) -> dict[tuple[int, ...], tuple[float, float]]:
    if stats is None:
        return {}
    for (name,), rows in stats.groups(("distribution",)):
        if name == distribution:
            keys = zip(*(stats.number(column)[rows].astype(int).tolist() for column in _STATS), strict=True)
            values = (stats.number(column)[rows].tolist() for column in ("local_pairs", "distinct_local_experts"))
            return dict(zip(keys, zip(*values, strict=True), strict=True))
    return {}


def _within(table: Table) -> NDArray[np.bool_]:
    """At most eight GPUs."""
    return table.number("tp", 1.0) * table.number("ep", 1.0) <= 8


def _slices(table: Table) -> tuple[Ints, tuple[str, ...]]:
    codes, dtypes = table.texts["dtype"]
    names = tuple(f"{dtype} tp*ep{degree}" for dtype in dtypes for degree in ("<=8", ">8"))
    return codes * 2 + ~_within(table), names


MOE_LAYER = Kind(
    name="moe_layer",
    columns=COLUMNS,
    prepare=prepare,
    shapes=("hidden", "intermediate", "experts", "topk"),
    fits=_within,
    bucket_key="tokens",
    buckets=lambda table: by_tokens(table.number("tokens")),
    slices=_slices,
    range_columns=("tokens", "hidden", "width", "local_experts", "topk", "gpus"),
)
