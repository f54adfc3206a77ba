"""What ``moesim bench`` measures against: libCacheSim's C loop, and twenty lines of C.

libcachesim is an extra for benchmarks (GPL-3.0): it is called as a witness, nothing of it is in here.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Timing = tuple[float, int]

_LIBCACHESIM = {"lru": "LRU", "fifo": "FIFO", "belady": "Belady", "lfu": "LFU", "sieve": "Sieve", "s3fifo": "S3FIFO"}
_RECORD = np.dtype([("time", "<u4"), ("id", "<u8"), ("size", "<u4"), ("next", "<i8")])

_C = """
#include <stdint.h>
long lru(const int32_t *keys, long count, int slots, int32_t *newer, int32_t *older, uint8_t *held) {
  int32_t newest = -1, oldest = -1;
  long hits = 0;
  for (long i = 0; i < count; i++) {
    int32_t key = keys[i];
    if (held[key]) {
      hits++;
      if (key == newest) continue;
      int32_t a = newer[key], b = older[key];
      older[a] = b;
      if (b >= 0) newer[b] = a; else oldest = a;
    } else {
      if (slots > 0) slots--;
      else { held[oldest] = 0; oldest = newer[oldest]; if (oldest >= 0) older[oldest] = -1; else newest = -1; }
      held[key] = 1;
    }
    newer[key] = -1; older[key] = newest;
    if (newest >= 0) newer[newest] = key; else oldest = key;
    newest = key;
  }
  return hits;
}
"""


def write_oracle_trace(path: Path, keys: Ints, next_use: Ints) -> None:
    """libCacheSim's "oracleGeneral" format: with the time of every key's next use (-1: none)."""
    records = np.empty(len(keys), dtype=_RECORD)
    records["time"], records["id"], records["size"] = 0, keys + 1, 1
    records["next"] = np.where(next_use < len(keys), next_use, -1)
    records.tofile(path)


def libcachesim_run(path: Path, policy: str, slots: int, count: int) -> Callable[[], Timing] | None:
    """CPU seconds and hits of libCacheSim's C loop over a file; None where libcachesim is not installed."""
    try:
        import libcachesim
    except ImportError:
        return None

    def run() -> Timing:
        reader = libcachesim.TraceReader(str(path), libcachesim.TraceType.ORACLE_GENERAL_TRACE)
        cache = getattr(libcachesim, _LIBCACHESIM[policy])(slots)
        begin = time.process_time()
        miss_ratio, _ = cache.process_trace(reader)
        return time.process_time() - begin, round((1 - miss_ratio) * count)

    return run


def c_lru_run(folder: Path, keys: Ints, num_keys: int, slots: int) -> Callable[[], Timing] | None:
    """CPU seconds and hits of the C loop above, compiled here with -O3; None without a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    source, library = folder / "lru.c", folder / "lru.so"
    source.write_text(_C, encoding="utf-8")
    flags = ["-O3", "-march=native", "-shared", "-fPIC"]
    subprocess.run([compiler, *flags, str(source), "-o", str(library)], check=True)
    lru = ctypes.CDLL(str(library)).lru
    lru.restype = ctypes.c_long
    narrow = keys.astype(np.int32)

    def run() -> Timing:
        arrays: list[Any] = [np.zeros(num_keys, np.int32), np.zeros(num_keys, np.int32), np.zeros(num_keys, np.uint8)]
        pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in (narrow, *arrays)]
        begin = time.process_time()
        hits = lru(pointers[0], ctypes.c_long(len(narrow)), ctypes.c_int(slots), *pointers[1:])
        return time.process_time() - begin, int(hits)

    return run
