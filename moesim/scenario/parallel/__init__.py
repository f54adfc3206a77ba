"""Scenarios of many GPUs: expert parallelism on a cluster.

Read ``schema`` first (what ``parallel:`` may say), then ``batch`` (which tokens are where), ``build`` (placement,
traffic and prices into a ``ParallelSetup``), ``memory`` (what each GPU holds), ``run`` and ``summary`` (the Result).
"""
