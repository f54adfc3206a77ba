"""How far from optimal: exact optima and proven bounds.

Read ``answer`` first (what every optimum is reported as), then ``program`` (linear programs, and what solvers do not
say by themselves). Then one part for each question: ``caching`` (who stays on the GPU), ``prefetch`` (the least stall,
and schedules that the engine replays), ``placement`` (experts on ranks), ``tiers`` (where and in how many bits),
``hybrid`` (a layer over CPU, GPU and link) and ``deployment`` (the cheapest mix that carries a load).
"""
