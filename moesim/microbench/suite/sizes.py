"""Sizes that the suite measures: powers of four, which fits see, and real experts, which they don't."""

from __future__ import annotations

KIB, MIB = 2**10, 2**20

#: bf16 bytes of an expert's matrices (biases left out) -> a model that has it. ``tests/microbench/test_suite.py``
#: compares them with the cards.
EXPERTS = {
    6_291_456: "qwen3-next-80b-a3b",
    9_437_184: "qwen3-30b-a3b",
    12_582_912: "olmoe-1b-7b",
    17_301_504: "deepseek-v2-lite",
    34_603_008: "glm-4.5-air",
    47_185_920: "deepseek-v2",
    49_766_400: "gpt-oss-20b",
    55_050_240: "qwen2-57b-a14b",
    67_108_864: "nllb-moe-54b",
    88_080_384: "deepseek-v3",
    157_286_400: "phi-3.5-moe",
    251_658_240: "llama-4-scout",
    352_321_536: "mixtral-8x7b",
    1_207_959_552: "grok-1",
}
#: 4 KiB to 256 MiB.
POWERS_OF_4 = tuple(4 * KIB * 4**power for power in range(9))

#: (hidden, inter) of experts whose feed-forward time is fitted, and of those that are held out.
FITTED_SHAPES = ((2048, 768), (2048, 1408), (4096, 14336))
HELD_OUT_SHAPES = ((2048, 1024), (2880, 2880))
FITTED_TOKENS = (1, 4, 16, 64, 256, 1024, 4096)
HELD_OUT_TOKENS = (2, 3, 6, 8, 12, 24, 48, 96, 192, 384, 768, 1536)


def expert_bytes(at_most: int, at_least: int = 0) -> list[int]:
    """Sizes of real experts within bounds, but for those that are a power of four anyway."""
    return [size for size in EXPERTS if at_least <= size <= at_most and size not in POWERS_OF_4]


def powers(at_least: int, at_most: int) -> list[int]:
    """Powers of four (times 4 KiB) within bounds."""
    return [size for size in POWERS_OF_4 if at_least <= size <= at_most]
