"""LRU at all sizes at once: how many other keys were used since a key's last use (its stack distance).

A key is in an LRU cache of c experts exactly if its distance is below c (Mattson et al. 1970). Uses are numbered; a
number is marked while it is its key's last use, so that a distance is how many marks stand behind a number. Marks are
bits of words, and marks are counted for each word, for each 8 words, for each 64, and so on: a distance is a handful
of sums of 8. When the numbers run out, keys are numbered anew in their order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

#: A word has 32 bits (in 64, so that no sum overflows), and 8 of each level make one of the next.
WORD, FAN = 5, 3
_ODD, _PAIRS, _NIBBLES, _BYTES = 0x55555555, 0x33333333, 0x0F0F0F0F, 0x01010101


@dataclass(frozen=True)
class Stack:
    """The marks.

    Attributes:
        last: the number of each key's last use; -1: none. [keys]
        key_of: the key of each number. [numbers]
        mark: bits. [words]
        counts: marks by word, then by 8 words, ... [sum of levels]
        level_start: where each level begins in ``counts``. [levels]
        next_number: [1]
    """

    last: Any
    key_of: Any
    mark: Any
    counts: Any
    level_start: Any
    next_number: Any


def use_distances(stack: Stack, keys: Any, histogram: Any) -> None:
    """Count each use's distance (the last place: first uses); every activation is a lookup of its own."""
    for place in range(len(keys)):
        histogram[_distance(stack, keys[place])] += 1
        _use(stack, keys[place])


def lookup_distances(stack: Stack, lookup_start: Any, lookup_key: Any, start: Any, keys: Any, histogram: Any) -> None:
    """As ``use_distances``, for visits: every lookup's distance is that before its visit."""
    for visit in range(len(start) - 1):
        for lookup in range(lookup_start[visit], lookup_start[visit + 1]):
            histogram[_distance(stack, lookup_key[lookup])] += 1
        for place in range(start[visit], start[visit + 1]):
            _use(stack, keys[place])


def _distance(stack: Stack, key: int) -> int:
    number = stack.last[key]
    if number < 0:
        return len(stack.last)
    found = ones(stack.mark[number >> WORD] >> (number & 31) >> 1)
    place = number >> WORD
    for level in range(len(stack.level_start)):
        within = place & 7
        first = stack.level_start[level] + place - within
        for other in range(8):  # all 8, because that takes a vector instruction and no jump
            found += stack.counts[first + other] * (other > within)
        place >>= FAN
    return found


def _use(stack: Stack, key: int) -> None:
    """The key's last use is now."""
    if stack.next_number[0] == len(stack.key_of):
        _number_anew(stack)
    if stack.last[key] >= 0:
        _set(stack, stack.last[key], -1)
    number = stack.next_number[0]
    stack.next_number[0] = number + 1
    stack.last[key], stack.key_of[number] = number, key
    _set(stack, number, 1)


def _set(stack: Stack, number: int, by: int) -> None:
    """Set (1) or clear (-1) a mark."""
    place = number >> WORD
    stack.mark[place] ^= 1 << (number & 31)
    for level in range(len(stack.level_start)):
        stack.counts[stack.level_start[level] + place] += by
        place >>= FAN


def _number_anew(stack: Stack) -> None:
    kept = 0
    stack.mark[:] = 0
    stack.counts[:] = 0
    for number in range(len(stack.key_of)):
        key = stack.key_of[number]
        if stack.last[key] == number:
            stack.last[key], stack.key_of[kept] = kept, key
            _set(stack, kept, 1)
            kept += 1
    stack.next_number[0] = kept


def ones(word: int) -> int:
    """How many bits of 32 are set."""
    word = word - ((word >> 1) & _ODD)
    word = (word & _PAIRS) + ((word >> 2) & _PAIRS)
    word = (word + (word >> 4)) & _NIBBLES
    return ((word * _BYTES) >> 24) & 0xFF
