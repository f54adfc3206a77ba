"""What a routing trace says about itself: model, shape, origin, licence, and the chain of its transforms."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Origin = Literal["captured", "synthetic", "transformed", "stand-in", "imported"]
Count = Annotated[int, Field(ge=1)]

#: Expert ids are at most 16 bits wide and the largest value means "no expert".
MAX_EXPERTS = 65535


class Domain(BaseModel):
    """One kind of text in a trace; ``RoutingTrace.domain`` holds indices into the card's list of these."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str
    source: str = ""
    licence: str = ""


class TraceCard(BaseModel):
    """The card of a routing trace, stored as JSON beside the arrays.

    ``expert_bytes`` is the size in bytes of one expert of each MoE layer, at ``expert_precision``; None where unknown.
    ``transforms`` is the chain of what was done to the trace since its origin, oldest first.
    ``sha256`` is the digest of the arrays (:attr:`RoutingTrace.sha256`) as the file was written; None in memory.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Annotated[str, Field(min_length=1)]
    model: str
    num_experts: Annotated[int, Field(ge=1, le=MAX_EXPERTS)]
    top_k: Count
    moe_layer_indices: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    num_shared_experts: Annotated[int, Field(ge=0)] = 0
    expert_bytes: list[Count] | None = None
    expert_precision: str | None = None
    origin: Origin
    transforms: list[str] = []
    domains: list[Domain] = []
    source: str = ""
    licence: str = ""
    tool: str = ""
    versions: dict[str, str] = {}
    training: dict[str, Any] = {}
    evaluation: dict[str, Any] = {}
    statistics: dict[str, Any] = {}
    notes: list[str] = []
    sha256: str | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        layers = self.moe_layer_indices
        if self.top_k > self.num_experts:
            raise ValueError(f"top_k {self.top_k} is more than num_experts {self.num_experts}")
        if any(later <= earlier for earlier, later in pairwise(layers)):
            raise ValueError("moe_layer_indices must ascend")
        if self.expert_bytes is not None and len(self.expert_bytes) != len(layers):
            raise ValueError(f"expert_bytes needs one size per MoE layer: {len(self.expert_bytes)} for {len(layers)}")
        return self

    @property
    def labels(self) -> tuple[str, ...]:
        """What every output that rests on this trace must say: "synthetic", "stand-in", both or nothing."""
        stood_in = self.origin == "stand-in" or any(step.startswith("stand_in(") for step in self.transforms)
        return ("synthetic",) * (self.origin == "synthetic") + ("stand-in",) * stood_in

    def derived(self, transform: str, origin: Origin = "transformed", **changes: Any) -> TraceCard:
        """The card after one more transform.

        A synthetic trace stays synthetic and a stand-in stays a stand-in, whatever is done to it afterwards;
        otherwise the new card has the given ``origin``. Checksum and statistics of the old arrays are dropped.
        """
        if self.origin == "synthetic" or (self.origin == "stand-in" and origin == "transformed"):
            origin = self.origin
        new: dict[str, Any] = {"transforms": [*self.transforms, transform], "statistics": {}, "sha256": None}
        return TraceCard.model_validate({**dict(self), **new, "origin": origin, **changes})
