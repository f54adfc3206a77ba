"""Exchanges: the fitted forms where they were fitted, closed forms where balanced, DeepEP's published times."""

import math

import numpy as np
import pytest

from moesim.costs import collective, dispatch
from moesim.costs.all_to_all import Exchange, Sizes
from moesim.costs.fitted import peaks_of
from moesim.costs.ports import Ports
from moesim.hardware import load_gpu
from moesim.hardware.fits import find, shipped_fits
from moesim.hardware.topology import build_topology


def balanced_items(gpus, items):
    """Each GPU sends ``items / gpus`` to each GPU; its own stay."""
    traffic = np.full((gpus, gpus), items / gpus)
    np.fill_diagonal(traffic, 0)
    return traffic


def priced(cluster, kind, items, item_bytes, operation="dispatch", nodes=None, **sizes):
    topology = build_topology(cluster, nodes)
    ports = Ports(topology, topology.num_gpus)
    volume = ports.volume(ports.loads(items))
    whole = {
        "hidden": 7168,
        "topk": 8,
        "experts": 256,
        "tokens": np.full(topology.num_gpus, 128.0),
        "reached": np.full(topology.num_gpus, 5.0),
        **sizes,
    }
    return Exchange(kind, topology, topology.num_gpus).price(operation, volume, Sizes(item_bytes=item_bytes, **whole))


@pytest.mark.parametrize("num_bytes", [2**12, 2**18, 2**24, 2**29])
def test_nccl_in_one_node_is_the_fitted_form(num_bytes):
    """Bus bytes 7/8 of the buffer; the form holds the measured tables within the targets of the cost report."""
    done = priced("hgx-h100-x1", "nccl", balanced_items(8, num_bytes / 2), 2.0)
    fit, _ = find(shipped_fits(), "collective", "h100-sxm", "nccl all_to_all")
    work = {
        "bus_bytes": collective.bus_bytes("all_to_all", num_bytes, 8),
        "gpus": np.asarray(8.0),
        "int8_reduction": np.asarray(0.0),
    }
    wanted = float(collective.FORM.seconds(work, peaks_of(load_gpu("h100-sxm")), fit.constants))
    assert done.sent_s == pytest.approx(np.full(8, wanted))
    assert done.received_s == pytest.approx(np.full(8, wanted))


@pytest.mark.parametrize("tokens", [8, 128, 4096])
def test_deepep_normal_in_one_node_is_the_fitted_form(tokens):
    reached = float(dispatch.gpus_reached(256, 8, 8))
    done = priced(
        "hgx-h100-x1",
        "deepep-normal",
        balanced_items(8, tokens * reached),
        2 * 7168.0,
        tokens=np.full(8, float(tokens)),
        reached=np.full(8, reached),
    )
    fit, _ = find(shipped_fits(), "dispatch_normal", "h100-sxm", "normal dispatch")
    work = {
        name: np.asarray(float(value))
        for name, value in {
            "tokens": tokens,
            "hidden": 7168,
            "reached": reached,
            "gpus": 8,
            "sms": 20,
            "value_bytes": 2,
        }.items()
    }
    wanted = float(dispatch.NORMAL.seconds(work, peaks_of(load_gpu("h100-sxm")), fit.constants))
    assert done.sent_s == pytest.approx(np.full(8, wanted))


@pytest.mark.parametrize("tokens", [1, 32, 128])
def test_deepep_low_latency_in_one_node_is_the_fitted_form(tokens):
    done = priced("hgx-h100-x1", "deepep-low-latency", balanced_items(8, tokens * 8), 7168.0)
    fit, _ = find(shipped_fits(), "dispatch_low_latency", "h100-sxm", "low_latency dispatch")
    work = {
        name: np.asarray(float(value))
        for name, value in {"tokens": tokens, "hidden": 7168, "topk": 8, "experts": 256, "value_bytes": 1}.items()
    }
    wanted = float(dispatch.LOW_LATENCY.seconds(work, peaks_of(load_gpu("h100-sxm")), fit.constants))
    assert done.sent_s == pytest.approx(np.full(8, wanted))


@pytest.mark.parametrize("nodes", [2, 4, 16])
def test_between_nodes_a_balanced_exchange_is_a_closed_form(nodes):
    """``(n - 1)/n`` of the bytes leave the node, over each GPU's own NIC at 41 GB/s, after NCCL's messages start."""
    gpus, num_bytes = 8 * nodes, 2**28
    done = priced("hgx-h100-x2", "nccl", balanced_items(gpus, num_bytes / 2), 2.0, nodes=nodes)
    start = 3e-6 * (1 + (gpus - 8) / 4)
    assert done.sent_s == pytest.approx(np.full(gpus, start + num_bytes * (nodes - 1) / nodes / 41e9))


DEEPEP = {16: (118, 195), 32: (155, 273), 64: (173, 314), 128: (192, 369), 256: (194, 360)}


@pytest.mark.parametrize(("gpus", "published"), DEEPEP.items())
def test_low_latency_kernels_between_nodes_take_what_was_published(gpus, published):
    """DeepEP 1 on H800, 400 Gbit/s: 128 tokens, top-8, 7168 values; fp8 out, bf16 back. 64 GPUs gave the NIC's rate."""
    errors = []
    for operation, value_bytes, microseconds in zip(("dispatch", "combine"), (1.0, 2.0), published, strict=True):
        done = priced(
            "h800-x8",
            "deepep-low-latency",
            balanced_items(gpus, 128 * 8),
            7168 * value_bytes,
            operation,
            nodes=gpus // 8,
        )
        errors.append(done.received_s.max() / (microseconds * 1e-6) - 1)
    assert max(map(abs, errors)) < 0.15, errors


def test_a_ring_all_reduce_at_size_is_its_closed_form():
    """``2 (n - 1)/n`` bytes over the link's share, as the form has it, plus a start that no size changes."""
    fit, _ = find(shipped_fits(), "collective", "h100-sxm", "nccl all_reduce")
    peaks = peaks_of(load_gpu("h100-sxm"))
    seconds = [
        float(
            collective.FORM.seconds(
                {
                    "bus_bytes": collective.bus_bytes("all_reduce", size, 8),
                    "gpus": np.asarray(8.0),
                    "int8_reduction": np.asarray(0.0),
                },
                peaks,
                fit.constants,
            )
        )
        for size in (2**32, 2**33)
    ]
    per_byte = (seconds[1] - seconds[0]) / 2**32
    constants = fit.constants
    wanted = 2 * 7 / 8 * (1 + constants["local"] / 7) / (constants["share"] * peaks.link_bytes_per_s)
    assert per_byte == pytest.approx(wanted, rel=0.05)
    assert math.isfinite(seconds[0])


def test_a_gpu_that_gets_more_is_done_later():
    items = balanced_items(8, 8000.0)
    items[:, 3] *= 3
    done = priced("hgx-h100-x1", "nccl", items, 14336.0)
    assert np.argmax(done.received_s) == 3
    assert done.received_s[3] > 1.5 * done.received_s[0]


def test_sizes_beyond_the_fitted_ones_are_told_and_make_the_time_assumed():
    exchange = Exchange("deepep-normal", build_topology("hgx-h100-x1"), 8)
    inside = {"tokens": 64.0, "hidden": 6144.0, "topk": 8.0, "experts": 256.0}
    assert exchange.outside("dispatch", inside) == []
    assert exchange.basis("dispatch", inside).kind == "measured"
    assert exchange.outside("dispatch", inside | {"hidden": 1e6})[0].startswith("hidden 1e+06 outside of ")
    assert exchange.basis("dispatch", inside | {"hidden": 1e6}).kind == "assumed"
    assert Exchange("fused", build_topology("hgx-h100-x1"), 8).outside("dispatch", {"hidden": 1e6}) == []


#: Measured GPUs, and the cluster of eight of them.
CLUSTERS = {"a100_sxm": "hgx-a100-x1", "h100_sxm": "hgx-h100-x1", "b200_sxm": "hgx-b200-x1"}


def measured(shared_data, table):
    parquet = pytest.importorskip("pyarrow.parquet", reason="published tables are Parquet files (extra tables)")
    return parquet.read_table(shared_data / "measured" / table).to_pylist()


def mean_error(pairs):
    """Mean absolute percentage error of (priced, measured), in percent."""
    return 100 * float(np.mean([abs(ours / theirs - 1) for ours, theirs in pairs]))


#: Bytes up to which a band goes -> the error allowed in it, percent.
BANDS = {64 * 2**10: 10, 4 * 2**20: 15, 2**63: 12}


def nccl_error(rows, gpu, band):
    """Of the all-to-all among eight of these GPUs, in percent."""
    below = max((edge for edge in BANDS if edge < band), default=0)
    pairs = [
        (
            priced(CLUSTERS[gpu], "nccl", balanced_items(8, row["bytes"] / 2), 2.0).received_s.max() * 1e6,
            row["latency_us"],
        )
        for row in rows
        if (row["op"], row["gpu"], row["gpus"]) == ("all_to_all", gpu, 8) and below < row["bytes"] <= band
    ]
    assert pairs
    return mean_error(pairs)


MISSED = "not reached: all-to-all of 64 KiB and less is 11.9 % off on A100, 18.5 % on H100, 12.4 % on B200"


@pytest.mark.parametrize(
    "band",
    [
        pytest.param(band, marks=pytest.mark.xfail(reason=MISSED) if limit == 10 else ())
        for band, limit in BANDS.items()
    ],
)
@pytest.mark.parametrize("gpu", CLUSTERS)
def test_exchanges_of_eight_gpus_hold_the_published_nccl_tables(shared_data, gpu, band):
    assert nccl_error(measured(shared_data, "collectives.parquet"), gpu, band) < BANDS[band]


@pytest.mark.parametrize("mode", ["low_latency", "normal"])
@pytest.mark.parametrize("operation", ["dispatch", "combine"])
def test_exchanges_of_eight_gpus_hold_the_published_deepep_tables(shared_data, mode, operation):
    rows = measured(shared_data, "moe_all_to_all.parquet")
    low = mode == "low_latency"
    for gpu in ("h100_sxm", "b200_sxm"):
        pairs = []
        for row in rows:
            if (row["gpu"], row["mode"], row["op"]) == (gpu, mode, operation) and row["sms"] in (None, 20):
                reached = float(dispatch.gpus_reached(row["experts"], row["topk"], 8))
                copies = row["tokens"] * (row["topk"] if low else reached)
                done = priced(
                    CLUSTERS[gpu],
                    f"deepep-{mode.replace('_', '-')}",
                    balanced_items(8, copies),
                    row["hidden"] * (1.0 if low and operation == "dispatch" else 2.0),
                    operation,
                    hidden=row["hidden"],
                    topk=row["topk"],
                    experts=row["experts"],
                    tokens=np.full(8, float(row["tokens"])),
                    reached=np.full(8, reached),
                )
                pairs.append((done.received_s.max() * 1e6, row["latency_us"]))
        assert len(pairs) >= 55
        assert mean_error(pairs) < 10
