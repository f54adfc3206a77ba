"""Batching policies, one file each: which of the running requests decode together. Their contract::

    class Params(PolicyParams)            with `pool`: so many batches of requests run at once
    def group(params, paths, batch) -> lists of places

``paths`` says what each running request's next token will use, as 0 and 1. [running, layers * experts] Each list that
``group`` returns is a step, with at most ``batch`` places; who is in none waits. A policy that looks at ``paths`` knows
the routing before the step runs (``models_future``). ``arrival`` is the shortest.
"""
