"""Which of our caching policies libCacheSim has as well, and what it counts."""

from moesim.traces.visits import next_use

#: ours: (policy, parameters) -> libCacheSim's class and arguments
SAME = {
    "lru": ("lru", {}, "LRU", {}),
    "fifo": ("fifo", {}, "FIFO", {}),
    "lfu": ("lfu", {}, "LFU", {}),
    "belady": ("belady", {}, "Belady", {}),
    "clock, 1 bit": ("clock", {}, "Clock", {}),
    "clock, 2 bits": ("clock", {"bits": 2}, "Clock", {"n_bit_counter": 2}),
    "sieve": ("sieve", {}, "Sieve", {}),
    "s3fifo": ("s3fifo", {}, "S3FIFO", {}),
    "s3fifo, other shares": (
        "s3fifo",
        {"small_ratio": 0.25, "ghost_ratio": 0.5, "move_to_main": 1},
        "S3FIFO",
        {"small_size_ratio": 0.25, "ghost_size_ratio": 0.5, "move_to_main_threshold": 1},
    ),
    "arc": ("arc", {}, "ARC", {}),
    "lru-k, k = 2": ("lru-k", {"remember": False}, "LRUK", {"k": 2}),
    "lru-k, k = 3": ("lru-k", {"k": 3, "remember": False}, "LRUK", {"k": 3}),
}


def hits_of_libcachesim(keys, slots, theirs, arguments, first=None):
    """Hits that the installed libCacheSim counts among the first accesses (default: all)."""
    import libcachesim

    cache = getattr(libcachesim, theirs)(slots, hashpower=16, **arguments)
    following, found = next_use(keys).tolist(), 0
    for place, key in enumerate(keys[:first].tolist()):
        request = libcachesim.Request()
        request.obj_id, request.obj_size = key + 1, 1
        request.clock_time, request.next_access_vtime = place, following[place]
        found += bool(cache.get(request))
    return found
