"""What a deployment costs: the rent of its GPUs, and the power that they draw."""

from __future__ import annotations

from moesim.scenario.serving.build import BuiltServing


def rent_usd_per_s(built: BuiltServing) -> float | None:
    """Of one GPU: as the scenario says, else the middle of the range on its card; None: no price is known.

    Of a machine that offloads: what it costs as `moesim run` has it, rented or owned.
    """
    if built.serving.usd_per_gpu_hour is not None:
        return built.serving.usd_per_gpu_hour / 3600
    if built.offloaded is not None:
        return built.offloaded.usd_per_s
    price = built.gpu.price
    rents = [rent.value for rent in (price.cloud_low, price.cloud_high) if rent is not None]
    return sum(rents) / len(rents) if rents else None


def watts(built: BuiltServing) -> float | None:
    """Of one GPU that runs steps: its power limit, the most that it may draw; None: unknown.

    Of a machine that offloads: what all of it draws on average while it works.
    """
    if built.offloaded is not None:
        return built.offloaded.watts
    return None if built.gpu.tdp is None else built.gpu.tdp.value
