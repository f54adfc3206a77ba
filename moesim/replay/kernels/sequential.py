"""Rule ``sequential``: one lookup per activation, one by one, as cache simulators do."""

from __future__ import annotations

from typing import Any

from moesim.replay.kernels.cache import ABSENT, CAPACITY, FAULT, KEPT, NOW, USED, VICTIM
from moesim.replay.kernels.policy import admit, before_insert, on_bypass, on_evict, on_hit, on_insert, on_visit, victim


def sequential(
    state_i: Any, state_f: Any, sizes: Any, held: Any, locked: Any, books: Any,
    layer: Any, starts_request: Any, start: Any, keys: Any, notes: Any, hit: Any,
) -> None:
    """Replay visits; ``hit`` says of each activation whether it was one. Stops where the policy breaks its contract.

    Args:
        layer, starts_request: what the policy is told of each visit. [visits]
        start: the activations of visit v are ``keys[start[v] : start[v + 1]]``. [visits + 1]
        notes: of each activation; empty where the policy takes none.
    """
    used, now = books[USED], books[NOW]
    for visit in range(len(layer)):
        on_visit(state_i, state_f, layer[visit], starts_request[visit])
        for place in range(start[visit], start[visit + 1]):
            key = keys[place]
            note = notes[place] if len(notes) else 0.0
            if held[key]:
                hit[place] = 1
                on_hit(state_i, state_f, key, now, note)
            else:
                hit[place] = 0
                before_insert(state_i, state_f, key)
                while used + sizes[key] > books[CAPACITY]:
                    leaver = victim(state_i, state_f, locked)
                    if leaver < 0 or held[leaver] != KEPT:
                        books[FAULT] = VICTIM
                        return
                    on_evict(state_i, state_f, leaver)
                    held[leaver] = ABSENT
                    used -= sizes[leaver]
                if admit(state_i, state_f, key, now, note):
                    on_insert(state_i, state_f, key, now, note)
                    held[key] = KEPT
                    used += sizes[key]
                else:
                    on_bypass(state_i, state_f, key, now, note)
            now += 1
    books[USED], books[NOW] = used, now
