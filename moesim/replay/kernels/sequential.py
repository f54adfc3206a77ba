"""Rule ``sequential``: one lookup per activation, one by one, as cache simulators do."""

from __future__ import annotations

from moesim.replay.kernels.caches import (
    ABSENT,
    CAPACITY,
    F_START,
    F_STOP,
    FAULT,
    I_START,
    I_STOP,
    KEPT,
    KEY_START,
    KEY_STOP,
    NOW,
    USED,
    Caches,
)
from moesim.replay.kernels.policy import (
    admit,
    before_insert,
    hears_visits,
    on_bypass,
    on_evict,
    on_hit,
    on_insert,
    on_visit,
    victim,
)
from moesim.replay.kernels.uses import Uses


def sequential(caches: Caches, uses: Uses, first_step: int, stop_step: int) -> None:
    """Replay some steps; ``uses.hit`` says of each activation whether it was one.

    The books are kept here in place of ``kernels.caches``, and only where something changes, which doubles the speed.
    Where nobody asks which visit it is, all activations are one.
    """
    one_cache, own = len(caches.books) == 1, caches.books[0]
    first_key = own[KEY_START]
    state_i, state_f = caches.state_i[own[I_START] : own[I_STOP]], caches.state_f[own[F_START] : own[F_STOP]]
    locked = caches.locked[first_key : own[KEY_STOP]]
    now, end = own[NOW], uses.start[first_step * uses.layers]
    visits_matter = hears_visits() or not one_cache
    stop_visit = stop_step * uses.layers
    visit = first_step * uses.layers if visits_matter else stop_visit - 1
    while visit < stop_visit:
        if visits_matter:
            layer = visit % uses.layers
            if not one_cache:
                own = caches.books[layer]
                first_key = own[KEY_START]
                state_i = caches.state_i[own[I_START] : own[I_STOP]]
                state_f = caches.state_f[own[F_START] : own[F_STOP]]
                locked = caches.locked[first_key : own[KEY_STOP]]
                now = own[NOW]
            starts = uses.starts_request[visit // uses.layers] and (layer == 0 or not one_cache)
            on_visit(state_i, state_f, layer, starts)
        visit += 1
        begin, end = end, uses.start[visit]
        for place in range(begin, end):
            now += 1
            key = uses.key[place]
            note = uses.note[place] if len(uses.note) else 0.0
            if caches.held[key]:
                uses.hit[place] = True
                on_hit(state_i, state_f, key - first_key, now - 1, note)
                continue
            uses.hit[place] = False
            before_insert(state_i, state_f, key - first_key)
            used = own[USED] + caches.sizes[key]
            while used > own[CAPACITY]:
                leaver = victim(state_i, state_f, locked) + first_key
                if leaver < first_key or leaver >= own[KEY_STOP] or caches.held[leaver] != KEPT:
                    caches.common[FAULT] = 1
                    return
                on_evict(state_i, state_f, leaver - first_key)
                caches.held[leaver] = ABSENT
                used -= caches.sizes[leaver]
            if admit(state_i, state_f, key - first_key, now - 1, note):
                on_insert(state_i, state_f, key - first_key, now - 1, note)
                caches.held[key] = KEPT
            else:
                on_bypass(state_i, state_f, key - first_key, now - 1, note)
                used -= caches.sizes[key]
            own[USED] = used
        if not one_cache:
            own[NOW] = now
    own[NOW] = now
