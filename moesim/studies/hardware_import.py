"""Users' own measurements of links: nccl-tests as a table or a network card, nvbandwidth as a link or network card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from moesim.errors import CardError, FileError
from moesim.hardware import LinkSpec, NetworkSpec, available, load_link, load_network
from moesim.hardware.sourced import Sourced
from moesim.results.result import write_text
from moesim.studies.measured.nccl_tests import NcclRow

#: Columns of the table ``collectives``.
COLUMNS = ("gpu", "source", "impl", "op", "dtype", "gpus", "nodes", "bytes", "latency_us")
#: Test cases of nvbandwidth, and the numbers of a link card that they give; the first that ran counts.
LINK_CASES = {
    "bandwidth": ("host_to_device_memcpy_ce", "host_to_device_memcpy_sm"),
    "bandwidth_both_ways": ("host_to_device_bidirectional_memcpy_ce", "host_to_device_bidirectional_memcpy_sm"),
}
NETWORK_CASES = {
    "bandwidth": (
        "device_to_device_memcpy_write_ce",
        "device_to_device_memcpy_read_ce",
        "device_to_device_memcpy_write_sm",
        "device_to_device_memcpy_read_sm",
    )
}


def collectives_table(rows: Sequence[NcclRow], gpu: str, source: str) -> list[dict[str, Any]]:
    """Rows of the table ``collectives``."""
    return [
        {
            "gpu": gpu,
            "source": source,
            "impl": "nccl",
            "op": row.operation,
            "dtype": row.dtype,
            "gpus": row.gpus,
            "nodes": row.nodes,
            "bytes": row.num_bytes,
            "latency_us": row.latency_us,
        }
        for row in rows
    ]


def write_table(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write a table as Parquet (what `moesim validate measured` reads) or CSV, by its suffix.

    Raises:
        FileError: another suffix, or no pyarrow for Parquet.
    """
    if path.suffix == ".csv":
        lines = [",".join(COLUMNS), *(",".join(str(row[name]) for name in COLUMNS) for row in rows)]
        write_text(path, "\n".join(lines) + "\n")
        return
    if path.suffix != ".parquet":
        raise FileError.of(str(path), "is neither .parquet, .csv nor .yaml", "as in -o collectives.parquet")
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError:
        hint = "pip install 'moesim[tables]', or write .csv"
        raise FileError.of(str(path), "writing Parquet needs pyarrow, which is not installed", hint) from None
    partial = path.with_name(f".{path.name}.partial")
    parquet.write_table(arrow.Table.from_pylist([dict(row) for row in rows]), partial)
    partial.replace(path)


def network_card_from_nccl(rows: Sequence[NcclRow], like: str, name: str, source: str) -> str:
    """A network card with the numbers that nccl-tests measured: bus bandwidth of the largest, time of the smallest
    size.

    Raises:
        CardError: no card of that name to take the rest from, or the collective has no number on a card.
    """
    base = _like(like, NetworkSpec)
    operation = rows[0].operation
    prefix = {"all_to_all": "alltoall", "all_reduce": "allreduce"}.get(operation)
    largest, smallest = max(rows, key=lambda row: row.num_bytes), min(rows, key=lambda row: row.num_bytes)
    where = f"{source}: {operation} over {rows[0].gpus} GPUs"
    if operation == "send_recv":
        return _card(
            base, name, {"bandwidth": (f"{largest.bus_gb_per_s:g} GB/s", f"{where}, {largest.num_bytes} bytes")}
        )
    if prefix is None:
        raise CardError.of("", f"a network card has no number for {operation}", "all_to_all, all_reduce or send_recv")
    numbers = {
        f"{prefix}_bandwidth": (
            f"{largest.bus_gb_per_s:g} GB/s",
            f"{where}, bus bandwidth at {largest.num_bytes} bytes",
        ),
        f"{prefix}_latency": (f"{smallest.latency_us:g} us", f"{where}, {smallest.num_bytes} bytes"),
    }
    return _card(base, name, numbers)


def card_from_nvbandwidth(cases: Mapping[str, Sequence[float]], like: str, name: str, source: str) -> str:
    """A link card (host and GPU) or network card (between GPUs), whichever ``like`` is, with measured bandwidths.

    Raises:
        CardError: no such card, or the output has none of its numbers.
    """
    is_link = like in available()["link"]
    base = _like(like, LinkSpec if is_link else NetworkSpec)
    numbers = {}
    for number, names in (LINK_CASES if is_link else NETWORK_CASES).items():
        case = next((case for case in names if cases.get(case)), None)
        if case is not None:
            rate = median(cases[case])  # single pairs may be slower, as on a busy host
            told = f"{source}: {case}, median of {len(cases[case])} ({min(cases[case]):g} to {max(cases[case]):g})"
            numbers[number] = (f"{rate:g} GB/s", told)
    if not numbers:
        wanted = ", ".join(name for names in (LINK_CASES if is_link else NETWORK_CASES).values() for name in names)
        raise CardError.of(source, f"has none of the cases that a card like {like} needs", f"nvbandwidth -t {wanted}")
    return _card(base, name, numbers)


def _like(name: str, spec: type[LinkSpec] | type[NetworkSpec]) -> LinkSpec | NetworkSpec:
    return load_link(name) if spec is LinkSpec else load_network(name)


def _card(base: LinkSpec | NetworkSpec, name: str, numbers: Mapping[str, tuple[str, str]]) -> str:
    """The card's YAML: the base's numbers with those that were measured in their place."""
    card: dict[str, Any] = {"name": name, "title": f"{base.title}, measured"}
    for field, value in base:
        if isinstance(value, Sourced):
            text = f"{value.value / 1e9:g} GB/s" if "bandwidth" in field else f"{value.value * 1e6:g} us"
            card[field] = {"value": text, "kind": value.kind, "source": value.source}
    for field, (text, source) in numbers.items():
        card[field] = {"value": text, "kind": "published", "source": source}
    card["notes"] = [
        f"Made by `moesim hardware import` from the card {base.name}; check the numbers that were not measured."
    ]
    return yaml.safe_dump(card, sort_keys=False, allow_unicode=True, width=110)
