"""Train a small mixture-of-experts model and record its routing: `python traces/training/make_trace.py 32x4`."""

import argparse
import os
import tempfile
from pathlib import Path

import torch
from corpus import read_corpus
from record import record, write
from shapes import SHAPES
from tokens import encode, train_tokenizer
from train import train

TRACES = Path(__file__).resolve().parents[1]


def main() -> None:
    """Corpus, tokeniser, training, recording, card: everything that stands behind one bundled trace."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--out", type=Path, help="the trace to write (default: traces/moe-SHAPE.npz)")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "moesim-training")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.work.mkdir(parents=True, exist_ok=True)
    shape = SHAPES[arguments.shape]()
    corpus = read_corpus()
    tokenizer = train_tokenizer(corpus, arguments.work / "tokenizer.json")
    streams = encode(corpus, tokenizer)
    model, summary = train(shape, streams, arguments.work)
    trace = record(model, shape, corpus, streams, summary)
    write(trace, arguments.out or TRACES / f"{shape.name}.npz")


if __name__ == "__main__":
    main()
