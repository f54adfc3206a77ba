"""Runs whose times were worked out by hand: attention 1 s, an expert 1 s, a copy 4 s, a flash read 8 s."""

from builders import MIB, setup_of, trace_of

from moesim.engine import simulate
from moesim.engine.outcome import HIT, LATE, MISS
from moesim.replay.figures import Cause


def compute_log(outcome):
    return [(span.what, span.key, span.start_s, span.end_s) for span in outcome.compute if span.end_s > span.start_s]


def link_log(outcome, link):
    return [(span.key, span.is_demand, span.start_s, span.end_s) for span in outcome.transfers[link]]


def stalls(outcome):
    return {cause.name: seconds for cause, seconds in zip(Cause, outcome.stall_s.sum(axis=0), strict=True) if seconds}


def test_miss_then_hit():
    outcome = simulate(setup_of(trace_of([[[0]], [[0]]], num_experts=2), slots=1))
    assert compute_log(outcome) == [
        ("attention + router", -1, 0, 1),
        ("expert", 0, 5, 6),
        ("attention + router", -1, 6, 7),
        ("expert", 0, 7, 8),
    ]
    assert link_log(outcome, "pcie") == [(0, True, 1, 5)]
    assert outcome.label.tolist() == [MISS, HIT]
    assert stalls(outcome) == {"PCIE": 4}


def test_resident_experts_run_first_and_the_second_copy_waits_for_the_first():
    trace = trace_of([[[0, 1]], [[2, 0]], [[3, 1]]], num_experts=4)
    outcome = simulate(setup_of(trace, slots=4))
    # token 1 asks at 1: copies 1-5, 5-9; expert 0 runs 5-6, expert 1 9-10; token 2 asks at 11: 0 runs 11-12 while
    # 2 is copied 11-15 and runs 15-16; token 3 asks at 17: 1 runs 17-18, 3 is copied 17-21 and runs 21-22
    assert link_log(outcome, "pcie") == [(0, True, 1, 5), (1, True, 5, 9), (2, True, 11, 15), (3, True, 17, 21)]
    assert outcome.step_end_s.tolist() == [10, 16, 22]
    assert outcome.label.tolist() == [MISS, MISS, MISS, HIT, MISS, HIT]
    assert stalls(outcome) == {"PCIE": 4 + 3 + 3 + 3}


def test_prefetch_hides_a_copy_and_a_late_one_is_charged_for_what_is_left():
    # two layers; the expert of layer 1 is proposed when layer 0's router has spoken
    trace = trace_of([[[0], [1]]], num_experts=2, lookahead={1: [[[1], [-1]]]})
    key = 1 * 2 + 1
    on_time = simulate(setup_of(trace, slots=2, prefetch=("next-gate", {}), expert_s=6.0))
    # demand of key 0: 1-5; prefetch of key 3: 5-9; expert 0: 5-11; attention 11-12: key 3 is there
    assert link_log(on_time, "pcie") == [(0, True, 1, 5), (key, False, 5, 9)]
    assert on_time.label.tolist() == [MISS, HIT]
    assert on_time.step_end_s.tolist() == [18]
    late = simulate(setup_of(trace, slots=2, prefetch=("next-gate", {})))
    # expert 0: 5-6; attention 6-7: asked at 7, in flight until 9
    assert late.label.tolist() == [MISS, LATE]
    assert late.step_end_s.tolist() == [10]
    assert stalls(late) == {"PCIE": 4 + 2}
    assert (late.prefetch.started, late.prefetch.late, late.prefetch.used, late.prefetch.wasted) == (1, 1, 0, 0)


def test_arrival_at_the_moment_of_asking_is_a_hit():
    trace = trace_of([[[0], [1]]], num_experts=2, lookahead={1: [[[1], [-1]]]})
    outcome = simulate(setup_of(trace, slots=2, prefetch=("next-gate", {}), expert_s=3.0))
    # prefetch 5-9; expert 0: 5-8; attention 8-9
    assert outcome.label.tolist() == [MISS, HIT]
    assert outcome.prefetch.used == 1


def wrong_prefetch(link):
    """Layer 1 needs key 4 and 5; key 3 was proposed for it, and for nothing else."""
    trace = trace_of([[[0, -1], [1, 2]]], num_experts=3, lookahead={1: [[[0, 1], [-1, -1]]]})
    return simulate(setup_of(trace, slots=6, prefetch=("next-gate", {}), link=link))


def test_a_queued_prefetch_becomes_a_demand_or_is_withdrawn_when_its_router_speaks():
    outcome = wrong_prefetch("demand-first")
    # demand 0: 1-5; prefetch 3: 5-9 (wrong, in flight), prefetch 4 queued; expert 0 5-6; attention 6-7: 4 and 5 asked
    assert link_log(outcome, "pcie") == [(0, True, 1, 5), (3, False, 5, 9), (4, True, 9, 13), (5, True, 13, 17)]
    assert outcome.label.tolist() == [MISS, MISS, MISS]
    counts = outcome.prefetch
    assert (counts.proposed, counts.started, counts.withdrawn, counts.wasted) == (2, 1, 1, 1)
    assert stalls(outcome) == {"PCIE": 4 + 4 + 3, "PCIE_QUEUE": 2}


def test_demand_precedes_queued_prefetches_only_under_demand_first():
    # two prefetches for layer 2 queue behind the copy for layer 0; layer 1 then demands key 2
    look = {2: [[[0, 1], [-1, -1], [-1, -1]]]}
    trace = trace_of([[[0, -1], [0, -1], [0, 1]]], num_experts=2, lookahead=look)
    orders = {
        link: [
            key
            for key, *_ in link_log(
                simulate(setup_of(trace, slots=6, prefetch=("next-gate", {"lookahead": 2}), link=link)), "pcie"
            )
        ]
        for link in ("demand-first", "fifo")
    }
    assert orders == {"demand-first": [0, 4, 2, 5], "fifo": [0, 4, 5, 2]}


def test_a_prefetch_without_room_is_given_up_and_can_be_demanded_later():
    trace = trace_of([[[0, 1], [2, 3]]], num_experts=4, lookahead={1: [[[2, 3], [-1, -1]]]})
    outcome = simulate(setup_of(trace, slots=1, prefetch=("next-gate", {}), link="fifo", copy_s=0.5, expert_s=4.0))
    # 1 takes the only room at 5.5 and keeps it while it is computed, so 2 and 3 of layer 1 (keys 6, 7) find none
    assert outcome.prefetch.no_room == 2
    assert [key for key, *_ in link_log(outcome, "pcie")] == [0, 1, 6, 7]
    assert outcome.label.tolist() == [MISS] * 4


def test_a_visit_larger_than_the_cache_runs_in_waves():
    trace = trace_of([[[0, 1, 2]]], num_experts=3)
    outcome = simulate(setup_of(trace, slots=2))
    # 0: copied 1-5, runs 5-6; 1: copied 5-9; 2 needs the room of 0, which is free at 6, so 2 is copied 9-13
    assert link_log(outcome, "pcie") == [(0, True, 1, 5), (1, True, 5, 9), (2, True, 9, 13)]
    assert outcome.step_end_s.tolist() == [14]
    assert outcome.resident_bytes.tolist() == [2 * MIB]
    slow = simulate(setup_of(trace, slots=2, expert_s=6.0))
    # 0 runs 5-11, so its room is free at 11 and 2 is copied 11-15; 1 runs 11-17, 2 runs 17-23
    assert link_log(slow, "pcie") == [(0, True, 1, 5), (1, True, 5, 9), (2, True, 11, 15)]
    assert slow.step_end_s.tolist() == [23]


def test_room_is_free_only_when_its_holder_is_computed():
    outcome = simulate(setup_of(trace_of([[[0, 1]]], num_experts=2), slots=1, expert_s=2.0, copy_s=1.0))
    # 0: copied 1-2, runs 2-4; 1 may only then be copied: 4-5, runs 5-7
    assert link_log(outcome, "pcie") == [(0, True, 1, 2), (1, True, 4, 5)]
    assert stalls(outcome) == {"PCIE": 2}
    assert outcome.step_end_s.tolist() == [7]


def test_flash_is_read_first_and_host_memory_keeps_what_it_holds():
    trace = trace_of([[[0]], [[1]], [[0]]], num_experts=2)
    outcome = simulate(setup_of(trace, slots=1, host_slots=2))
    # 0: read 1-9, copied 9-13, runs 13-14; 1: read 15-23, copied 23-27, runs 27-28; 0 again: asked 29, in host
    assert link_log(outcome, "flash") == [(0, True, 1, 9), (1, True, 15, 23)]
    assert link_log(outcome, "pcie") == [(0, True, 9, 13), (1, True, 23, 27), (0, True, 29, 33)]
    assert outcome.step_end_s.tolist() == [14, 28, 34]
    assert stalls(outcome) == {"FLASH": 16, "PCIE": 12}


def test_unified_memory_reads_from_flash_straight_to_where_the_gpu_computes():
    outcome = simulate(setup_of(trace_of([[[0]], [[0]]], num_experts=2), slots=1, unified=True))
    assert link_log(outcome, "flash") == [(0, True, 1, 9)]
    assert link_log(outcome, "pcie") == []
    assert outcome.label.tolist() == [MISS, HIT]
    assert outcome.step_end_s.tolist() == [10, 12]


def test_cpu_computes_misses_beside_the_gpu():
    trace = trace_of([[[0, 1, 2]]], num_experts=3)
    outcome = simulate(setup_of(trace, slots=3, on_miss=("cpu-compute", {})))
    assert link_log(outcome, "cpu") == [(0, True, 1, 4), (1, True, 4, 7), (2, True, 7, 10)]
    assert link_log(outcome, "pcie") == []
    assert outcome.step_end_s.tolist() == [10]
    assert outcome.on_cpu.all()
    assert stalls(outcome) == {"CPU": 9}


def test_shared_experts_run_while_copies_are_under_way():
    outcome = simulate(setup_of(trace_of([[[0]]], num_experts=1), slots=1, shared_s=2.0))
    assert compute_log(outcome)[1:] == [("shared experts", -1, 1, 3), ("expert", 0, 5, 6)]
    assert stalls(outcome) == {"PCIE": 2}


def test_prefill_is_one_visit_per_layer_in_the_order_of_last_use():
    trace = trace_of([[[0]], [[1]], [[0]], [[1]]], num_experts=2, prompt=3)
    outcome = simulate(setup_of(trace, slots=1))
    # prefill asks for 1 (last used by token 1), then 0 (token 2); decode then finds 0 gone or kept by that order
    assert link_log(outcome, "pcie") == [(1, True, 1, 5), (0, True, 6, 10), (1, True, 12, 16)]
    assert outcome.step_end_s.tolist() == [11, 17]


def test_evict_after_lets_a_visit_overshoot():
    trace = trace_of([[[0, 1]], [[1, 0]]], num_experts=2)
    outcome = simulate(setup_of(trace, slots=1, rule="evict_after"))
    assert outcome.overshoot_bytes == MIB
    # the visit's own members stay, so both are still there
    assert outcome.label.tolist() == [MISS, MISS, HIT, HIT]


def test_batched_requests_share_a_step():
    trace = trace_of([[[0]], [[1]], [[0]], [[1]]], num_experts=2, requests=[0, 0, 1, 1])
    outcome = simulate(setup_of(trace, slots=2, workload={"batch": 2}))
    # both requests use expert 0, then both use expert 1: one lookup each
    assert outcome.label.tolist() == [MISS, MISS]
    assert outcome.step_end_s.tolist() == [6, 12]


def test_between_pieces_of_a_prefetch_demands_go_ahead_and_it_goes_on_before_what_came_later():
    look = {2: [[[0, 1], [-1, -1], [-1, -1]]]}
    trace = trace_of([[[0, -1], [0, -1], [0, 1]]], num_experts=2, lookahead=look)
    first, fifo = (
        simulate(setup_of(trace, slots=6, prefetch=("next-gate", {"lookahead": 2}), link=link, pieces=2))
        for link in ("demand-first", "fifo")
    )
    # keys 4 and 5 are proposed at 1, for layer 2; layer 1 asks for key 2 at 7, when half of 4 has come
    assert link_log(first, "pcie") == [
        *[(0, True, 1, 5), (4, False, 5, 7), (2, True, 7, 11), (4, False, 11, 13)],
        (5, True, 13, 17),  # layer 2 asks at 13: 4 is there, 5 has not begun and becomes a demand, in one piece
    ]
    assert first.label.tolist() == [MISS, MISS, HIT, MISS]
    assert [span.bytes_of(MIB + 1) for span in first.transfers["pcie"]] == [
        *[MIB + 1, MIB // 2, MIB + 1, MIB // 2 + 1, MIB + 1],
    ]
    assert [key for key, *_ in link_log(fifo, "pcie")] == [0, 4, 4, 5, 5, 2]
    assert fifo.label.tolist() == [MISS, MISS, HIT, HIT]


def test_a_prefetch_in_pieces_stops_when_its_router_has_not_chosen_it():
    trace = trace_of([[[0, -1], [1, 2]]], num_experts=3, lookahead={1: [[[0, 1], [-1, -1]]]})
    outcome = simulate(setup_of(trace, slots=6, prefetch=("next-gate", {}), pieces=2))
    # as in wrong_prefetch, but half of key 3 is enough: 5-7
    assert link_log(outcome, "pcie") == [(0, True, 1, 5), (3, False, 5, 7), (4, True, 7, 11), (5, True, 11, 15)]
    counts = outcome.prefetch
    assert (counts.started, counts.withdrawn, counts.wasted) == (1, 1, 1)
    assert outcome.resident_bytes[-1] == 3 * MIB
    kept = simulate(setup_of(trace, slots=6, prefetch=("next-gate", {}), pieces=2, withdraw=False))
    # it stays, though its other half would come after the end
    assert link_log(kept, "pcie") == link_log(outcome, "pcie")
    assert kept.resident_bytes[-1] == 4 * MIB


def test_a_late_prefetch_in_pieces_is_finished_before_demands():
    trace = trace_of([[[0, -1], [1, 2]]], num_experts=3, lookahead={1: [[[1, -1], [-1, -1]]]})
    outcome = simulate(setup_of(trace, slots=6, prefetch=("next-gate", {}), pieces=4))
    # key 4 is asked for at 7, in its third piece; key 5 is missing
    assert link_log(outcome, "pcie")[-3:] == [(4, False, 7, 8), (4, False, 8, 9), (5, True, 9, 13)]
    assert outcome.label.tolist() == [MISS, LATE, MISS]


def test_a_prefetch_in_pieces_that_holds_the_last_room_gives_way_to_a_demand():
    look = {2: [[[0], [-1], [-1]]]}
    trace = trace_of([[[-1], [0], [0]]], num_experts=1, lookahead=look)
    outcome = simulate(setup_of(trace, slots=1, prefetch=("next-gate", {"lookahead": 2}), pieces=2))
    # key 2 of layer 2: half of it 1-3; layer 1 asks for key 1 at 2 and gets the only room at 3
    assert link_log(outcome, "pcie") == [(2, False, 1, 3), (1, True, 3, 7), (2, True, 9, 13)]
    assert outcome.label.tolist() == [MISS, MISS]
    assert outcome.prefetch.wasted == 1


def test_prefetches_that_are_not_withdrawn_hold_up_what_comes_after_them():
    # layer 0 asks for all of layer 1; its router chooses one of four
    trace = trace_of([[[0], [3]]], num_experts=4)
    ends = {
        (link, withdraw): simulate(
            setup_of(trace, slots=8, prefetch=("fetch-all", {}), link=link, withdraw=withdraw)
        ).step_end_s[-1]
        for link in ("demand-first", "fifo")
        for withdraw in (True, False)
    }
    # copies of 4, 5, 6, 7 from 5 on, asked for 7 at 7: with the others out of the way or behind it, it comes at 13
    assert ends == {
        ("demand-first", True): 14,
        ("demand-first", False): 14,
        ("fifo", True): 14,
        ("fifo", False): 22,
    }
