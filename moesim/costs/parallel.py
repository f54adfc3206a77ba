"""How a model is spread over GPUs."""

from __future__ import annotations

from dataclasses import dataclass

from moesim.errors import CardError, Fault
from moesim.models import ModelSpec


@dataclass(frozen=True)
class Parallel:
    """How a model is spread over ``tp * dp * pp`` GPUs.

    Attributes:
        tp: GPUs that share each attention head group, dense network, shared expert and the output head.
        dp: replicas of attention and dense parts, each with its own requests.
        ep: groups of routed experts; the ``tp * dp / ep`` GPUs of one group divide each expert's width.
        pp: stages of layers.
    """

    tp: int = 1
    dp: int = 1
    ep: int = 1
    pp: int = 1

    @property
    def moe_tp(self) -> int:
        """GPUs that divide an expert's width."""
        return self.tp * self.dp // self.ep

    @property
    def gpus(self) -> int:
        """All of them."""
        return self.tp * self.dp * self.pp

    def check(self, spec: ModelSpec) -> None:
        """Whether a model can be divided so.

        Raises:
            CardError: it can't.
        """
        counts = {name: value for name, value in vars(self).items() if value < 1}
        faults = [Fault(name, f"must be at least 1 (got {value})") for name, value in counts.items()]
        if not faults and (self.tp * self.dp) % self.ep:
            told = f"must divide tp * dp = {self.tp * self.dp} (got {self.ep})"
            faults.append(Fault("ep", told, "as in tp=8, ep=8"))
        if not faults and spec.num_experts % self.ep:
            told = f"{spec.num_experts} experts of {spec.name} do not divide over {self.ep} ranks"
            faults.append(Fault("ep", told))
        if not faults and self.pp > spec.num_layers:
            faults.append(Fault("pp", f"{spec.name} has {spec.num_layers} layers (got {self.pp} stages)"))
        if faults:
            raise CardError(faults)
