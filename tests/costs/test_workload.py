"""What a rank gets of a batch whose distribution is known by name."""

import numpy as np
import pytest

from moesim.costs.workload import balanced, known, power_law_loads, rank_share


def test_balanced_by_hand():
    # 160 tokens top-1 of 128 experts: one pair each, and one more for the first 32; the first of 2 ranks holds 64
    share = balanced(160, 128, 1, 2)
    assert (share.pairs, share.distinct, share.fullest) == (96, 64, 2)
    # 4 tokens top-8 of 256 over 8 ranks: 32 pairs, evenly apart
    share = balanced(4, 256, 8, 8)
    assert (share.pairs, share.distinct, share.fullest) == (4, 4, 1)


@pytest.mark.parametrize(("tokens", "topk"), [(1, 8), (7, 8), (64, 2), (5000, 6)])
def test_power_law_loads_are_a_possible_routing(tokens, topk):
    loads = power_law_loads(1.2, tokens, 64, topk, np.random.default_rng(0), draws=5)
    assert (loads.sum(axis=1) == tokens * topk).all()
    assert loads.min() >= 0
    assert loads.max() <= tokens  # a token's experts are distinct


def test_the_most_loaded_rank_has_at_least_the_mean():
    share = rank_share("power_law_1.2", 256, 128, 8, 8)
    assert share.pairs >= 256 * 8 / 8
    assert share == rank_share("power_law_1.2", 256, 128, 8, 8)


def test_unknown_distributions_are_told():
    assert known("balanced")
    assert known("power_law_1.01")
    assert not known("zipf")
    with pytest.raises(ValueError, match="zipf"):
        rank_share("zipf", 1, 8, 2, 1)


def test_draws_agree_with_published_means(shared_data):
    pytest.importorskip("pyarrow", reason="needs moesim[tables]")
    from moesim.studies.measured.table import read_table

    stats = read_table(shared_data / "measured" / "moe_workload_stats.parquet")
    random = np.random.default_rng(1)
    for distribution, tolerance in (("balanced", 0.01), ("power_law_1.01", 0.06), ("power_law_1.2", 0.06)):
        rows = next(rows for (name,), rows in stats.groups(("distribution",)) if name == distribution)
        errors = []
        for row in random.choice(rows, 150, replace=False):
            sizes = [int(stats.number(column)[row]) for column in ("tokens", "experts", "topk", "ep")]
            errors.append(rank_share(distribution, *sizes).distinct / stats.number("distinct_local_experts")[row] - 1)
        assert abs(np.mean(errors)) < tolerance
        assert np.median(np.abs(errors)) < tolerance
