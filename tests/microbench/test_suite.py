"""The suite is fixed in code: cases, and which of them fits may see."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim.errors import MicrobenchError
from moesim.microbench.suite import BENCHES, bench_named, case_key, chosen
from moesim.microbench.suite.bench import Sizing, case_line
from moesim.microbench.suite.cuda import token_counts
from moesim.microbench.suite.sizes import EXPERTS, FITTED_SHAPES, HELD_OUT_SHAPES, POWERS_OF_4
from moesim.models import load_model, parameters

SIZING = Sizing(cpu_threads=8, file_bytes=2**30)
#: Everything that the issue and the benchmark list name.
REQUIRED = {
    "copy",
    "copy_host_kind",
    "copy_bidir",
    "copy_queue",
    "overlap",
    "zero_copy",
    "launch",
    "router_roundtrip",
    "expert_ffn",
    "grouped",
    "hbm",
    "d2d",
    "router_permute",
    "dequant",
    "alloc",
    "file_to_gpu",
    "replay",
    "dram",
    "cpu_expert",
    "file",
    "mmap",
    "stage",
}


def test_every_benchmark_of_the_list_is_there():
    assert {bench.name for bench in BENCHES} == REQUIRED


@pytest.mark.parametrize("level", ["quick", "full"])
@pytest.mark.parametrize("bench", BENCHES, ids=lambda bench: bench.name)
def test_cases_are_distinct_and_fit_on_a_line(bench, level):
    cases = bench.cases(level, SIZING)
    assert len({case_key(case) for case in cases}) == len(cases) > 0
    for case in cases:
        assert len(case_line(case).split()) == len(case)
        assert bench.split(case) in ("fit", "holdout")


@pytest.mark.parametrize("bench", BENCHES, ids=lambda bench: bench.name)
def test_both_sides_of_the_split_are_measured(bench):
    sides = {bench.split(case) for case in bench.cases("full", SIZING)}
    assert sides == ({"holdout"} if bench.name == "replay" else {"fit", "holdout"})


def test_real_experts_are_held_out():
    copies = [case for case in bench_named("copy").cases("full", SIZING) if case["segments"] == 1]
    sizes = {case["bytes"] for case in copies if bench_named("copy").split(case) == "fit"}
    assert sizes == set(POWERS_OF_4)
    for shape in HELD_OUT_SHAPES:
        assert shape not in FITTED_SHAPES


@pytest.mark.parametrize(("size", "name"), EXPERTS.items())
def test_expert_sizes_are_those_of_the_models(size, name):
    assert 0 <= parameters.expert_bytes(load_model(name), "bf16") - size < 1e-3 * size  # the rest: biases


@given(
    spread=st.sampled_from(["uniform", "zipf0.6", "zipf1.0", "zipf1.4", "onehot"]),
    groups=st.integers(1, 128),
    mean=st.integers(1, 64),
)
def test_token_counts_give_every_expert_some_and_sum_up(spread, groups, mean):
    counts = token_counts(spread, groups, mean * groups)
    assert sum(counts) == mean * groups
    assert min(counts) >= 1
    assert counts == token_counts(spread, groups, mean * groups)
    if spread == "uniform":
        assert np.ptp(counts) <= 1
    if spread == "onehot" and groups > 1:
        assert sorted(counts)[:-1] == [1] * (groups - 1)


def test_unknown_names_are_refused_all_at_once():
    with pytest.raises(MicrobenchError) as caught:
        chosen(["copi", "drum"])
    assert [fault.hint for fault in caught.value.faults] == ["did you mean 'copy'?", "did you mean 'dram'?"]
