"""From a trained model to a bundled trace: held-out requests, their routing, and the card that tells all about it."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from baselines import KneserNeyBigram, Unigram, pairs
from corpus import Corpus
from routing_statistics import routing_statistics
from shapes import Shape
from tokens import VOCABULARY, TokenStreams
from train import SEED, held_out_loss

from moesim.traces import Domain as CardDomain
from moesim.traces import RoutingTrace, TraceCard, save_trace
from moesim.traces.capture import Request, capture

PROMPT_TOKENS = (64, 256)
NEW_TOKENS = (65, 193)  # the last one is not fed back: 64 to 192 decode rows
TEMPERATURE = 0.75
LOOKAHEAD = {1: 1, 2: 4, 3: 4}  # distance -> recorded for every n-th request
NOTES = [
    "A small model trained from scratch for this trace: its locality is real routing of a trained router, but its "
    "magnitudes are not those of a large model. Magnitudes come from imported traces.",
    "lookahead_d at layer l: the router of MoE layer l + d fed with the input of layer l's router.",
]


def held_out_requests(streams: TokenStreams, count: int) -> list[Request]:
    """`count` requests, dealt to the domains in turn; prompts are pieces of held-out documents that don't overlap."""
    rng = np.random.default_rng([SEED, 1])
    supply = [held_out_pieces(documents, rng) for documents in streams.documents["held_out"]]
    requests = []
    for place in range(count):
        domain = place % len(supply)
        piece = supply[domain].pop()
        prompt = piece[: rng.integers(PROMPT_TOKENS[0], PROMPT_TOKENS[1] + 1)]
        new_tokens = int(rng.integers(NEW_TOKENS[0], NEW_TOKENS[1] + 1))
        requests.append(Request(prompt.tolist(), new_tokens, domain))
    return requests


def held_out_pieces(documents: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """Pieces of `PROMPT_TOKENS[1]` tokens, in random order."""
    size = PROMPT_TOKENS[1]
    pieces = [tokens[start : start + size] for tokens in documents for start in range(0, len(tokens) - size, size)]
    return [pieces[place] for place in rng.permutation(len(pieces))]


def evaluate(model: Any, streams: TokenStreams) -> dict[str, Any]:
    """Held-out cross-entropy of the model and of the baselines, on the same tokens."""
    flat = {split: [d for domain in domains for d in domain] for split, domains in streams.documents.items()}
    training, validation, held_out = (pairs(flat[split]) for split in ("train", "validation", "held_out"))
    bigram = KneserNeyBigram(training).tune(validation)
    losses = {
        "model": held_out_loss(model, flat["held_out"]),
        "unigram": Unigram(training).loss(held_out),
        "bigram": bigram.loss(held_out),
    }
    tokens_per_byte = len(held_out) / streams.bytes["held_out"]
    return {
        "held_out_tokens": len(held_out),
        "held_out_bytes": streams.bytes["held_out"],
        "nats_per_token": {name: round(loss, 4) for name, loss in losses.items()},
        "bits_per_byte": {name: round(loss / math.log(2) * tokens_per_byte, 4) for name, loss in losses.items()},
        "bigram": f"interpolated Kneser-Ney over the {len(training)} training tokens, discount {bigram.discount:.2f} "
        "chosen on the validation documents",
    }


def record(model: Any, shape: Shape, corpus: Corpus, streams: TokenStreams, training: dict[str, Any]) -> RoutingTrace:
    """Capture the held-out requests and write everything that is known about the trace on its card."""
    domains = [
        CardDomain(name=domain.name, source=", ".join(domain.packages), licence=domain.licence)
        for domain in corpus.domains
    ]
    trace = capture(
        model,
        held_out_requests(streams, shape.requests),
        name=shape.name,
        temperature=TEMPERATURE,
        seed=SEED,
        lookahead=LOOKAHEAD,
        domains=domains,
        suppress_tokens=[0],  # a request does not wander into another document
    )
    card = trace.card.model_dump() | {
        "model": shape.name,
        "licence": "Apache-2.0 (the trace; the text that was read stays under its own licences, see domains)",
        "source": f"documents of Debian packages, {VOCABULARY} BPE tokens; corpus sha256 {corpus.digest()}",
        "versions": trace.card.versions | {"tokenizers": tokenizers.__version__},
        "training": {
            "architecture": f"{type(model).__name__}, trained from scratch; the shape of {shape.stands_in_for}",
            **training,
            "training_tokens": streams.tokens("train"),
        },
        "evaluation": evaluate(model, streams) | {"temperature": TEMPERATURE},
        "statistics": routing_statistics(trace),
        "notes": NOTES,
    }
    return replace(trace, card=TraceCard.model_validate(card))


def write(trace: RoutingTrace, path: Path) -> None:
    """The trace at `path` and its card, readable, beside it."""
    save_trace(trace, path)
    card = trace.card.model_dump(exclude_defaults=True) | {"sha256": trace.sha256}
    path.with_suffix(".json").write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
