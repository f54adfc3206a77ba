"""Which requests come when: drawn, or read from a file, stretch by stretch, so that days of them need little memory."""

from __future__ import annotations

import csv
import gzip
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from moesim.errors import FileError
from moesim.scenario.serving.schema import MAX_TOKENS, ArrivalsSpec, Lengths
from moesim.scenario.streams import random_stream
from moesim.setup.serving import Requests
from moesim.units import parse

STRETCH = 65_536
DEFAULT_REQUESTS = 1000
#: Names of a file's columns, in lower case: moesim's own, and those of published traces.
_TIMES = ("arrival_s", "timestamp", "arrived_at", "time")
_PROMPTS = ("prompt_tokens", "contexttokens", "input_toks", "num_prefill_tokens", "request tokens")
_OUTPUTS = ("output_tokens", "generatedtokens", "output_toks", "num_decode_tokens", "response tokens")


@dataclass(frozen=True)
class Workload:
    """The requests of a scenario. Every iteration gives the same.

    Attributes:
        sources: how many requests the routing has to draw from; 0: none.
    """

    spec: ArrivalsSpec
    folder: Path
    seed: int
    sources: int

    def __call__(self) -> Iterator[Requests]:
        """Stretch by stretch, in order of arrival; of closed-loop users all in one."""
        draw = random_stream(self.seed, "serving routing")
        for arrival_s, prompt, output in self._stretches():
            source = draw.integers(0, max(self.sources, 1), len(arrival_s))
            yield Requests(arrival_s, prompt, output, source.astype(np.int64))

    def _stretches(self) -> Iterator[tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]]:
        spec, lengths = self.spec, random_stream(self.seed, "serving lengths")
        if spec.file is not None:
            yield from self._read(self.folder / spec.file, lengths)
            return
        assert spec.prompt is not None
        assert spec.output is not None
        gaps, total, clock = random_stream(self.seed, "arrivals"), spec.requests or DEFAULT_REQUESTS, 0.0
        size = total if spec.users else STRETCH
        for first in range(0, total, size):
            count = min(size, total - first)
            gap_s = _gaps(spec, gaps, count)
            arrival_s = gap_s if spec.users else clock + np.cumsum(gap_s)
            clock = float(arrival_s[-1])
            yield arrival_s, _tokens(spec.prompt, lengths, count), _tokens(spec.output, lengths, count)

    def _read(
        self, path: Path, lengths: np.random.Generator
    ) -> Iterator[tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]]:
        left = self.spec.requests or math.inf
        for times, prompts, outputs in _batches(path):
            count = int(min(left, len(times)))
            left -= count
            prompt, output = np.array(prompts[:count], dtype=np.int64), np.array(outputs[:count], dtype=np.int64)
            if self.spec.prompt is not None:
                prompt = _tokens(self.spec.prompt, lengths, count)
            if self.spec.output is not None:
                output = _tokens(self.spec.output, lengths, count)
            if count:
                yield np.array(times[:count]) / self.spec.speed, prompt, output
            if not left:
                return


def _gaps(spec: ArrivalsSpec, random: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Seconds between arrivals, or of thinking."""
    if spec.users is not None:
        return random.exponential(parse(spec.think, "time"), count)
    assert spec.rate is not None
    mean = 1 / parse(spec.rate, "request_rate")
    if spec.cv == 0:
        return np.full(count, mean)
    shape = 1 / spec.cv**2
    return random.exponential(mean, count) if spec.cv == 1 else random.gamma(shape, mean / shape, count)


def _tokens(lengths: Lengths, random: np.random.Generator, count: int) -> NDArray[np.int64]:
    """A log-normal of the mean and coefficient of variation that are asked for, at least 1 and at most ``max``."""
    if lengths.cv == 0:
        return np.full(count, lengths.mean, dtype=np.int64)
    sigma = math.sqrt(math.log1p(lengths.cv**2))
    drawn = np.exp(random.normal(math.log(lengths.mean) - sigma**2 / 2, sigma, count))
    return np.clip(np.rint(drawn), 1, lengths.max or 10 * lengths.mean).astype(np.int64)


def _batches(path: Path) -> Iterator[tuple[list[float], list[int], list[int]]]:
    """The file's requests, some at a time; times in seconds from the first.

    Raises:
        FileError: it can't be read, lacks a column, or a line is wrong: which, and why.
    """
    times: list[float] = []
    prompts: list[int] = []
    outputs: list[int] = []
    start, last = math.nan, -math.inf
    try:
        with _opened(path) as stream:
            rows = csv.reader(stream)
            columns = _columns(path, next(rows, []))
            for number, row in enumerate(rows, 2):
                if not row:
                    continue
                moment, prompt, output = _parsed(path, number, row, columns)
                start = moment if math.isnan(start) else start
                if moment < last:
                    told = "comes before the request above it"
                    raise FileError.of(f"{path}:{number}", told, "sort the file by arrival")
                last = moment
                times.append(moment - start)
                prompts.append(prompt)
                outputs.append(output)
                if len(times) == STRETCH:
                    yield times, prompts, outputs
                    times, prompts, outputs = [], [], []
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise FileError.of(str(path), f"can't be read: {error}") from None
    if math.isnan(start):
        raise FileError.of(str(path), "holds no request")
    if times:
        yield times, prompts, outputs


def _opened(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _columns(path: Path, header: list[str]) -> tuple[int, int, int]:
    names = [name.strip().lower() for name in header]
    found = [
        next((names.index(name) for name in wanted if name in names), -1) for wanted in (_TIMES, _PROMPTS, _OUTPUTS)
    ]
    absent = [wanted[0] for wanted, place in zip((_TIMES, _PROMPTS, _OUTPUTS), found, strict=True) if place < 0]
    if absent:
        told = f"has no column {' and no '.join(absent)} (its first line: {', '.join(header)[:80]!r})"
        raise FileError.of(str(path), told, "columns arrival_s, prompt_tokens, output_tokens")
    return found[0], found[1], found[2]


def _parsed(path: Path, number: int, row: list[str], columns: tuple[int, int, int]) -> tuple[float, int, int]:
    try:
        moment, prompt, output = (row[column].strip() for column in columns)
        seconds, tokens = _seconds(moment), (int(prompt), int(output))
    except (ValueError, IndexError):
        told = f"is not a time and two numbers of tokens (got {','.join(row)[:60]!r})"
        raise FileError.of(f"{path}:{number}", told) from None
    if not all(1 <= count <= MAX_TOKENS for count in tokens) or not math.isfinite(seconds):
        raise FileError.of(f"{path}:{number}", f"tokens must be 1 to {MAX_TOKENS} (got {prompt} and {output})")
    return seconds, *tokens


def _seconds(text: str) -> float:
    """Seconds as a number, or a time stamp such as ``2023-11-16 18:17:03.9799600``."""
    if ":" not in text:
        return float(text)
    whole, _, part = text.partition(".")
    moment = datetime.fromisoformat(whole).replace(tzinfo=None)
    return (moment - datetime(1970, 1, 1)).total_seconds() + float(f"0.{part.rstrip('Z') or 0}")
