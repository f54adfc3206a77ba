"""What kernels compute with, against numpy: the same functions that nvcc compiles for the device."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st


def pointer(array):
    return array.ctypes.data_as(ctypes.c_void_p)


@settings(max_examples=50, deadline=None)
@given(size=st.integers(1, 2**31), parts=st.integers(1, 64))
def test_parts_of_a_copy_cover_it_once(emulator, size, parts):
    wide = ctypes.c_int64
    cuts = [emulator.part_begin_of(wide(size), wide(parts), wide(index)) for index in range(parts + 1)]
    assert cuts[0] == 0
    assert cuts[-1] == size
    assert cuts == sorted(cuts)
    assert all(cut % 256 == 0 for cut in cuts[:-1])


def e4m3(byte):
    """OCP 8-bit floating point, E4M3: bias 7, no infinity, one NaN."""
    sign, exponent, mantissa = -1.0 if byte & 128 else 1.0, byte >> 3 & 15, byte & 7
    if byte & 127 == 127:
        return np.nan
    return sign * (mantissa / 8 * 2.0**-6 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7))


def test_every_byte_of_the_small_formats(emulator):
    codes = np.arange(256, dtype=np.uint8)
    found, scale, shifted = (np.zeros(256, np.float32) for _ in range(3))
    emulator.decode_formats(pointer(codes), 256, pointer(found), pointer(scale), pointer(shifted))
    expected = np.array([e4m3(int(code)) for code in codes], dtype=np.float32)
    np.testing.assert_array_equal(found, expected)
    ordinary = ~np.isnan(expected)
    np.testing.assert_array_equal(shifted[ordinary], expected[ordinary])
    np.testing.assert_array_equal(scale[:255], 2.0 ** (np.arange(255) - 127.0))
    assert np.isnan(scale[255])
    e2m1, int4 = np.zeros(16, np.float32), np.zeros(16, np.int32)
    emulator.decode_nibbles(pointer(e2m1), pointer(int4))
    sizes = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    np.testing.assert_array_equal(e2m1, [*sizes, *(-size for size in sizes)])
    np.testing.assert_array_equal(int4, np.arange(16) - 8)


def test_bf16_rounds_to_nearest_even(emulator):
    values = np.random.default_rng(1).standard_normal(4096).astype(np.float32)
    halves = (values.view(np.uint32) & 0xFFFF0000 | 0x8000).view(np.float32)  # exactly between two bf16
    values = np.concatenate([values, halves, [0.0, -0.0, np.inf, -np.inf]]).astype(np.float32)
    found = np.zeros(len(values), np.uint16)
    emulator.to_bf16(pointer(values), len(values), pointer(found))
    bits = values.view(np.uint32).astype(np.uint64)
    np.testing.assert_array_equal(found, (bits + 0x7FFF + (bits >> 16 & 1)) >> 16)


@settings(max_examples=50, deadline=None)
@given(counts=st.lists(st.integers(0, 5), min_size=1, max_size=40).filter(any))
def test_each_tile_finds_its_expert(emulator, counts):
    start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    expected = np.repeat(np.arange(len(counts)), counts)
    found = [emulator.tile_expert(pointer(start), len(counts), tile) for tile in range(start[-1])]
    np.testing.assert_array_equal(found, expected)


@settings(max_examples=50, deadline=None)
@given(counts=st.lists(st.integers(0, 300), min_size=1, max_size=40).filter(any), size=st.sampled_from([1, 4, 16, 128]))
def test_tiles_cover_every_token_of_every_expert_once(emulator, counts, size):
    experts, wide = len(counts), np.array(counts, np.int64)
    offset, start = np.zeros(experts + 1, np.int32), np.zeros(experts + 1, np.int32)
    emulator.tiles(pointer(wide), experts, size, pointer(offset), pointer(start))
    np.testing.assert_array_equal(offset, np.concatenate([[0], np.cumsum(counts)]))
    np.testing.assert_array_equal(np.diff(start), -(-wide // size))
    seen = []
    for number in range(start[-1]):
        found = np.zeros(3, np.int32)
        emulator.tile(pointer(offset), pointer(start), experts, number, size, pointer(found))
        expert, first, tokens = found.tolist()
        assert 1 <= tokens <= size
        assert offset[expert] <= first <= first + tokens <= offset[expert + 1]
        seen += range(first, first + tokens)
    assert seen == list(range(sum(counts)))


@pytest.mark.parametrize(("experts", "k"), [(8, 2), (32, 4), (33, 5), (128, 8), (512, 16)])
def test_a_warp_chooses_the_same_experts(emulator, experts, k):
    random = np.random.default_rng(experts)
    for row in range(32):
        scores = random.standard_normal(experts).astype(np.float32)
        if row % 2:
            scores = np.round(scores)  # ties: the lower number wins
        ids = np.zeros(k, np.int32)
        emulator.warp_topk(pointer(scores), experts, k, pointer(ids))
        np.testing.assert_array_equal(ids, np.argsort(-scores, kind="stable")[:k])


def test_gate_and_up_rows_interleave_by_sixteen(emulator):
    columns, is_up = np.zeros(128, np.int32), np.zeros(128, np.int32)
    emulator.gate_up_rows(pointer(columns), pointer(is_up))
    for matrix in (0, 1):
        np.testing.assert_array_equal(np.sort(columns[is_up == matrix]), np.arange(64))
    np.testing.assert_array_equal(columns[is_up == 0], columns[is_up == 1])
    np.testing.assert_array_equal(np.flatnonzero(is_up) - np.flatnonzero(is_up == 0), np.full(64, 16))


@pytest.mark.parametrize(("experts", "k"), [(8, 2), (32, 4), (128, 8), (512, 10)])
@pytest.mark.parametrize("sigmoid", [0, 1])
def test_chosen_experts_and_their_weights(emulator, experts, k, sigmoid):
    scores = np.random.default_rng(experts).standard_normal((64, experts)).astype(np.float32)
    scores[:8] = np.round(scores[:8])  # ties: the lower number wins
    ids, weights = np.zeros((64, k), np.int32), np.zeros((64, k), np.float32)
    emulator.choose(pointer(scores), 64, experts, k, sigmoid, pointer(ids), pointer(weights))
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(ids, expected)
    chosen = np.take_along_axis(scores.astype(np.float64), expected, axis=1)
    raw = 1 / (1 + np.exp(-chosen)) if sigmoid else np.exp(chosen)
    np.testing.assert_allclose(weights, raw / raw.sum(axis=1, keepdims=True), rtol=1e-5)


def test_the_fragments_of_a_warp_multiply_matrices(emulator):
    random = np.random.default_rng(3)
    weights, x = (random.standard_normal(shape).astype(np.float32) for shape in ((16, 32), (8, 32)))
    out = np.zeros((16, 8), np.float32)
    emulator.skinny_block(pointer(weights), pointer(x), pointer(out))
    np.testing.assert_allclose(out, weights @ x.T, rtol=1e-5, atol=1e-5)
