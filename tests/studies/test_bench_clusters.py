"""The benchmark of clusters: it measures what it says, and its plot has a point for each row."""

from moesim.report.figures.canvas import draw
from moesim.report.figures.scaling import scaling
from moesim.scenario import load_scenario
from moesim.scenario.parallel.parts import load_parallel_parts
from moesim.studies.bench_clusters import MODEL, SIZES, curves, measure, scenario
from moesim.studies.bench_rows import BenchRow


def test_a_small_size_is_measured():
    seconds, mib = measure(1, 32)
    assert 0 < seconds < 5
    assert 50 < mib < 2048


def test_every_size_is_a_sound_scenario_of_58_layers_of_256_experts():
    for size in SIZES[:4]:
        parts = load_parallel_parts(load_scenario(scenario(size.nodes, size.tokens_per_gpu)))
        assert parts.degrees.ep == 8 * size.nodes
        assert (parts.model.num_moe_layers, parts.model.num_experts) == (58, 256)


def test_curves_hold_every_row_once_or_at_the_crossing_twice():
    rows = [
        BenchRow.of("clusters", MODEL, f"a pass of {size.name}", [float(place + 1)], "CPU s")
        for place, size in enumerate(SIZES)
    ]
    found = curves(rows)
    assert sum(map(len, found.values())) == len(SIZES) + 1
    assert [size for size, _ in next(iter(found.values()))] == [8, 16, 32, 64, 128, 256, 512, 1024]
    assert "<svg" in draw(scaling, found, height_in=2.2, alt="time")
