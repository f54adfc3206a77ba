"""Train one shape on the CPU: Muon and AdamW, a balancing loss per layer, checkpoints that resume."""

import collections
import resource
import sys
import time
from pathlib import Path
from typing import Any

import experts
import numpy as np
import torch
from muon import Muon
from shapes import CONTEXT, Shape
from tokens import TokenStreams, windows
from torch.nn import functional
from transformers import AutoModelForCausalLM

from moesim.traces.capture import find_routers

SEED = 20_261
WARMUP_STEPS = 40
CHECKPOINT_SECONDS = 120
DECAYING_SHARE = 0.4


def build(shape: Shape) -> Any:
    """The untrained language model of a shape, the same for the same seed."""
    torch.manual_seed(SEED)
    model = AutoModelForCausalLM.from_config(shape.config, attn_implementation="sdpa")
    model.set_experts_implementation("grouped_mm")
    return model


def speed_up(model: Any) -> Any:
    """The model, set for fast training steps of one batch shape."""
    model.set_experts_implementation(experts.NAME)
    for layer in model.model.layers:
        for part in (layer.self_attn, layer.input_layernorm, layer.post_attention_layernorm):
            part.compile(dynamic=False)
    return model.train()


class BalancingLoss:
    """Hooks on the routers; the Switch Transformer's balancing loss, summed over layers.

    Per layer E * sum over experts of (share of activations) * (mean router probability): 1 where the load is even.
    """

    def __init__(self, model: Any):
        self.losses: list[torch.Tensor] = []
        for router in find_routers(model):
            router.module.register_forward_hook(self._record)

    def _record(self, module: Any, _inputs: Any, output: Any) -> None:
        logits, _, chosen = output
        share = torch.bincount(chosen.reshape(-1), minlength=module.num_experts) / chosen.numel()
        self.losses.append(module.num_experts * (share * functional.softmax(logits.float(), dim=-1).mean(0)).sum())

    def take(self) -> torch.Tensor:
        """The sum over the layers of the last forward pass."""
        total = torch.stack(self.losses).sum()
        self.losses.clear()
        return total


class TrainingStream:
    """Sequences of `CONTEXT` + 1 tokens over the shuffled training documents; shuffled anew in every epoch."""

    def __init__(self, streams: TokenStreams):
        self.documents = [tokens for domain in streams.documents["train"] for tokens in domain]
        self.epoch = -1
        self.flat = np.empty(0, dtype=np.int32)

    def batch(self, step: int, sequences: int) -> torch.Tensor:
        """int64 [sequences, CONTEXT + 1]: the batch of a step, a function of the step alone."""
        length = sum(len(tokens) + 1 for tokens in self.documents) - 1
        per_epoch = length // (sequences * CONTEXT)
        if step // per_epoch != self.epoch:
            self.epoch = step // per_epoch
            order = np.random.default_rng([SEED, self.epoch]).permutation(len(self.documents))
            self.flat = np.concatenate([part for place in order for part in ([0], self.documents[place])])
        # Neighbouring sequences of a batch lie far apart in the stream, so that a batch mixes the domains.
        starts = (np.arange(sequences) * per_epoch + step % per_epoch) * CONTEXT
        return torch.from_numpy(self.flat[starts[:, None] + np.arange(CONTEXT + 1)]).long()


def learning_rate(step: int, shape: Shape) -> float:
    """Linear warm-up, the peak, then a linear decay towards zero over the last `DECAYING_SHARE` of the steps."""
    rising = (step + 1) / WARMUP_STEPS
    falling = (shape.steps - step) / (DECAYING_SHARE * shape.steps)
    return shape.learning_rate * min(1.0, rising, falling)


class Optimizers:
    """Muon for the matrices of attention and experts, AdamW for embedding, routers, norms and biases."""

    def __init__(self, model: Any):
        plain = {id(p) for router in find_routers(model) for p in router.module.parameters()}
        plain.add(id(model.get_input_embeddings().weight))
        matrices, fused, others = [], [], []
        for name, parameter in model.named_parameters():
            if parameter.ndim < 2 or id(parameter) in plain:
                others.append(parameter)
            else:
                (fused if "gate_up_proj" in name else matrices).append(parameter)
        self.members: list[torch.optim.Optimizer] = [
            Muon([{"params": matrices}, {"params": fused, "fused": 2}], lr=0.0),
            torch.optim.AdamW(others, lr=0.0, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
        ]

    def step(self, rate: float) -> None:
        """One update at this learning rate; the gradients are dropped."""
        for member in self.members:
            for group in member.param_groups:
                group["lr"] = rate
            member.step()
            member.zero_grad(set_to_none=True)

    def state_dict(self) -> list[dict[str, Any]]:
        """What a checkpoint holds."""
        return [member.state_dict() for member in self.members]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Go on from a checkpoint."""
        for member, state in zip(self.members, states, strict=True):
            member.load_state_dict(state)


def train(shape: Shape, streams: TokenStreams, folder: Path) -> tuple[Any, dict[str, Any]]:
    """Train `shape`, or go on from the checkpoint in `folder`. Returns the model and a summary for the card."""
    model = speed_up(build(shape))
    balancing, optimizers, data = BalancingLoss(model), Optimizers(model), TrainingStream(streams)
    checkpoint = folder / f"{shape.name}.pt"
    state: dict[str, Any] = {"step": 0, "wall_s": 0.0, "cpu_s": 0.0}
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved.pop("model"))
        optimizers.load_state_dict(saved.pop("optimizers"))
        state = saved
    clock, losses = Clock(state), collections.deque[float](maxlen=50)
    for step in range(state["step"], shape.steps):
        losses.append(backward(model, balancing, data.batch(step, shape.sequences_per_step), shape.balancing))
        optimizers.step(learning_rate(step, shape))
        if step % 20 == 0:
            mean = sum(losses) / len(losses)
            print(f"{shape.name} step {step} loss {mean:.3f} {clock.wall():.0f} s", file=sys.stderr, flush=True)
        if clock.due() or step + 1 == shape.steps:
            state = clock.advance(step + 1)
            save(checkpoint, {**state, "model": model.state_dict(), "optimizers": optimizers.state_dict()})
    trained = build(shape)
    trained.load_state_dict(model.state_dict())
    return trained.eval(), summary(shape, trained, state)


def backward(model: Any, balancing: BalancingLoss, batch: torch.Tensor, balancing_factor: float) -> float:
    """Gradients of one batch [sequences, tokens + 1], clipped; its cross-entropy in nats per token."""
    logits = model(input_ids=batch[:, :-1], use_cache=False).logits
    loss = functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
    (loss + balancing_factor * balancing.take()).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    return loss.item()


class Clock:
    """Wall and processor time of the training, over all of its resumptions."""

    def __init__(self, state: dict[str, Any]):
        self.before = state
        self.started = time.monotonic()
        self.saved = self.started
        self.cpu_started = cpu_seconds()

    def wall(self) -> float:
        """Seconds of training so far."""
        return float(self.before["wall_s"]) + time.monotonic() - self.started

    def due(self) -> bool:
        """Whether the next checkpoint is due."""
        return time.monotonic() - self.saved > CHECKPOINT_SECONDS

    def advance(self, step: int) -> dict[str, Any]:
        """The state to save at a checkpoint."""
        self.saved = time.monotonic()
        cpu = float(self.before["cpu_s"]) + cpu_seconds() - self.cpu_started
        return {"step": step, "wall_s": self.wall(), "cpu_s": cpu}


def cpu_seconds() -> float:
    """Processor seconds of this process, all threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint whole or not at all."""
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def summary(shape: Shape, model: Any, state: dict[str, Any]) -> dict[str, Any]:
    """The card's account of the training."""
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "steps": state["step"],
        "tokens_seen": state["step"] * shape.tokens_per_step,
        "context_tokens": CONTEXT,
        "optimiser": "Muon (attention, experts) and AdamW (embedding, routers, norms), peak learning rate "
        f"{shape.learning_rate}, falling to zero over the last {DECAYING_SHARE:.0%} of the steps",
        "balancing_loss": f"{shape.balancing} per layer (Switch Transformer)",
        "wall_s": round(state["wall_s"]),
        "cpu_s": round(state["cpu_s"]),
        "hardware": f"CPU, {torch.get_num_threads()} thread(s), no GPU",
        "seed": SEED,
    }


@torch.inference_mode()
def held_out_loss(model: Any, documents: list[np.ndarray]) -> float:
    """Cross-entropy in nats per token over whole documents, cut into windows of `CONTEXT` tokens."""
    total, tokens = 0.0, 0
    for rows in np.array_split(windows(documents, CONTEXT), max(1, len(documents) // 2)):
        batch = torch.from_numpy(rows).long()
        logits = model(input_ids=batch[:, :-1].clamp(min=0), use_cache=False).logits
        targets = batch[:, 1:].flatten()
        total += functional.cross_entropy(logits.flatten(0, 1), targets, ignore_index=-1, reduction="sum").item()
        tokens += int((targets >= 0).sum())
    return total / tokens
