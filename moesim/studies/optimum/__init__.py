"""How far a scenario is from the best possible: its own run beside the optimum of each problem.

Read ``study`` first (the problems, in turn); each problem has a module: ``caching``, ``prefetch``, ``placement``,
``tiers``, ``hybrid``. A schedule is replayed before it is reported, so optimum and policy are timed alike.
"""
