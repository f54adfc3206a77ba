"""Write `traces/README.md`: `python traces/training/write_readme.py`. Every number in it is computed here.

The statistics of real models' traces come from data of others that is not bundled; `--real` names its folder.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from routing_statistics import routing_statistics

from moesim.errors import MoesimError
from moesim.traces import DECODE, RoutingTrace, load_trace
from moesim.traces.importers.neutral import import_neutral

TRACES = Path(__file__).resolve().parents[1]
TEMPLATE = Path(__file__).with_name("README.template.md")
REAL = {"gpt-oss-20b_decode.npz": "gpt-oss-20b", "qwen3-30b-a3b_edge.npz": "Qwen3-30B-A3B (top-k forced to 6)"}
FIGURES = {
    "decode_tokens": "decode tokens",
    "consecutive_overlap_over_chance": "overlap of consecutive tokens, over k/E",
    "load_cv": "load CV",
    "next_layer_information_less_chance": "next-layer information over entropy, less chance",
    "lru_2k_hit_rate_per_activation": "LRU (2k experts per layer) hit rate per activation",
    "lru_2k_hit_rate_over_uniform": "the same, over uniform routing's",
    "lookahead_1_recall": "lookahead 1 recall",
    "lookahead_2_recall": "lookahead 2 recall",
    "lookahead_3_recall": "lookahead 3 recall",
}


def table(header: list[str], rows: list[list[Any]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def number(value: float | None) -> str:
    """A figure for a table; a dash where there is none."""
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.2f}"


def shape_table(files: dict[Path, RoutingTrace]) -> str:
    """What each bundled trace is."""
    rows = []
    for path, trace in files.items():
        card = trace.card
        shared = f" + {card.num_shared_experts} shared" if card.num_shared_experts else ""
        decode = int((trace.phase == DECODE).sum())
        rows.append(
            [
                f"[{card.name}]({path.with_suffix('.json').name})",
                f"{card.num_experts} top-{card.top_k}{shared}",
                trace.num_layers,
                len(trace.request_ids),
                number(trace.num_tokens),
                number(decode),
                f"{path.stat().st_size / 1e6:.1f}",
            ]
        )
    return table(["trace", "experts", "MoE layers", "requests", "positions", "of them decode", "MB"], rows)


def loss_table(files: dict[Path, RoutingTrace]) -> str:
    """How well each model was trained, beside what counts alone can do."""
    rows = []
    for trace in files.values():
        training, evaluation = trace.card.training, trace.card.evaluation
        nats, bits = evaluation["nats_per_token"], evaluation["bits_per_byte"]
        losses = [f"{nats[name]:.3f} ({bits[name]:.3f})" for name in ("model", "bigram", "unigram")]
        hours = number(training["cpu_s"] / 3600)
        rows.append([trace.card.name, number(training["parameters"]), number(training["tokens_seen"]), hours, *losses])
    return table(["trace", "parameters", "tokens seen", "CPU hours", "model", "bigram", "unigram"], rows)


def statistics_table(columns: dict[str, RoutingTrace]) -> str:
    """The decode statistics of every trace, a column each."""
    figures = [routing_statistics(trace) for trace in columns.values()]
    rows = [[label, *(number(one.get(name)) for one in figures)] for name, label in FIGURES.items()]
    shapes = [f"{trace.num_experts} top-{trace.top_k}" for trace in columns.values()]
    return table(["decode", *columns], [["experts", *shapes], *rows])


def domain_table(trace: RoutingTrace) -> str:
    """The text of the corpus."""
    assert trace.domain is not None
    requests = trace.domain[[trace.rows_of(int(request)).start for request in trace.request_ids]]
    counts = np.bincount(requests, minlength=len(trace.card.domains))
    rows = [[d.name, d.source, d.licence] for d, count in zip(trace.card.domains, counts, strict=True) if count]
    return table(["domain", "Debian packages", "licence of the text"], rows).replace("---:", "---")


def main() -> None:
    """Fill the template."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--real", type=Path, default=TRACES.parent.parent / "shared" / "data" / "traces")
    real = parser.parse_args().real
    files = {path: load_trace(path) for path in sorted(TRACES.glob("*.npz"))}
    try:
        others = {label: import_neutral(real / name) for name, label in REAL.items()}
    except MoesimError as error:
        sys.exit(f"{error}\n\nhint: name the folder of the real models' traces with --real")
    text = TEMPLATE.read_text(encoding="utf-8").format(
        shapes=shape_table(files),
        losses=loss_table(files),
        statistics=statistics_table({trace.card.name: trace for trace in files.values()} | others),
        domains=domain_table(next(iter(files.values()))),
        megabytes=f"{sum(path.stat().st_size for path in files) / 1e6:.1f}",
    )
    (TRACES / "README.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
