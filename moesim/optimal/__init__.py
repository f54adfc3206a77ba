"""How far from optimal: exact optima and proven bounds.

Read ``answer`` first (what every optimum is reported as), then ``program`` (linear programs, and what solvers do not
say by themselves). Then one part for each question: ``caching``.
"""
