"""A language model as its configuration tells it: the fields from which every size and count follows."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from moesim.errors import nearest
from moesim.models.attention import Attention, Count, HybridAttention, Index, Mixer
from moesim.models.precision import PRECISIONS

#: What "active parameters" counts beside the layers: nothing, the output head, or head and input embedding.
Convention = Literal["without_embedding_and_head", "with_head_only", "with_embedding_and_head"]


def _known_precision(name: str) -> str:
    if name not in PRECISIONS:
        raise ValueError(f"unknown precision | hint: {nearest(name, PRECISIONS)}")
    return name


PrecisionName = Annotated[str, AfterValidator(_known_precision)]


class Origin(BaseModel):
    """Where numbers were read: ``published`` with the model or about it, or ``assumed`` (from memory)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["published", "assumed"]
    source: str = Field(min_length=1)


class PublishedCount(Origin):
    """A number of parameters as others state it, in units of 1e9, beside which the computed one is put."""

    billions: Annotated[float, Field(gt=0)]


class ModelSpec(BaseModel):
    """A mixture-of-experts language model, or a dense one: all layers dense, and ``num_experts``, ``top_k`` and
    ``moe_intermediate_size`` 0.

    Layers ``[0, num_dense_layers)`` are dense. Of the others, those whose index modulo ``moe_layer_period`` is
    ``moe_layer_offset`` are MoE layers, the rest are dense too. In an encoder-decoder the encoder's layers come first
    (``num_encoder_layers``), and each decoder layer has a second, cross attention.

    - ``shared_intermediate_size_total``: width of all shared experts of a layer together; None: each is as wide as
      a routed one.
    - ``ffn_matrices``: 3 for gate, up and down; 2 for up and down.
    - ``norms_per_layer``, ``norm_bias``, ``ffn_bias``, ``router_bias``, ``head_bias``: small tensors, counted.
    - ``expert_precision``, ``dense_precision``: as released, by the names of ``models.precision``.
    - ``config``: where the fields were read; ``unverified``: fields that weren't, and why they are believed.
    - ``total_published``, ``active_published``: for comparison, the latter by ``active_published_convention``. Where
      the total differs by more than 1 % from what ``models.parameters`` computes, ``difference_explained`` says why.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    hf_id: str | None = None
    config: Origin
    unverified: dict[str, str] = {}

    num_layers: Annotated[Count, Field(le=10_000)]
    num_encoder_layers: Index = 0
    num_dense_layers: Index = 0
    moe_layer_period: Count = 1
    moe_layer_offset: Index = 0
    hidden_size: Count
    dense_intermediate_size: Count | None = None
    moe_intermediate_size: Index
    num_experts: Annotated[Index, Field(le=65_535)]
    num_shared_experts: Index = 0
    shared_intermediate_size_total: Count | None = None
    shared_expert_gate: bool = False
    top_k: Index
    router: str = ""
    attention: Annotated[Attention, Field(discriminator="kind")]
    vocab_size: Count
    tied_embeddings: bool
    ffn_matrices: Literal[2, 3] = 3
    norms_per_layer: Count = 2
    norm_bias: bool = False
    ffn_bias: bool = False
    router_bias: bool = False
    head_bias: bool = False
    expert_precision: PrecisionName
    dense_precision: PrecisionName

    total_published: PublishedCount | None = None
    active_published: PublishedCount | None = None
    active_published_convention: Convention | None = None
    difference_explained: str = ""
    notes: list[str] = []

    @model_validator(mode="after")
    def _fields_agree(self) -> ModelSpec:
        wrong = []
        if self.top_k > self.num_experts:
            wrong.append(f"top_k {self.top_k} is more than num_experts {self.num_experts}")
        sizes = {name: getattr(self, name) for name in ("num_experts", "top_k", "moe_intermediate_size")}
        if self.moe_layer_indices and not all(sizes.values()):
            absent = ", ".join(name for name, value in sizes.items() if not value)
            wrong.append(
                f"{absent} must be above 0 where a layer has experts (num_dense_layers: {self.num_layers} for "
                "a dense model)"
            )
        if not self.moe_layer_indices and any(sizes.values()):
            wrong.append("no layer is an MoE layer: see num_dense_layers, moe_layer_period and moe_layer_offset")
        if self.num_moe_layers < self.num_layers and self.dense_intermediate_size is None:
            wrong.append("there are dense layers, so dense_intermediate_size is required")
        if self.num_encoder_layers >= self.num_layers:
            wrong.append("num_encoder_layers must leave layers for the decoder")
        if unknown := [field for field in self.unverified if field not in type(self).model_fields]:
            wrong.append(f"unverified names no field: {', '.join(unknown)}")
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    @property
    def moe_layer_indices(self) -> tuple[int, ...]:
        """The layers that have experts, ascending."""
        layers = range(self.num_dense_layers, self.num_layers)
        return tuple(layer for layer in layers if layer % self.moe_layer_period == self.moe_layer_offset)

    @property
    def num_moe_layers(self) -> int:
        """How many layers have experts."""
        return len(self.moe_layer_indices)

    def mixer(self, layer: int) -> Mixer:
        """What mixes tokens in a layer: its attention, or a hybrid model's state mixer."""
        if isinstance(self.attention, HybridAttention):
            full = layer % self.attention.full_period == self.attention.full_offset
            return self.attention.full if full else self.attention.other
        return self.attention
