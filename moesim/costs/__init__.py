"""Seconds from specs and sizes: pure functions that broadcast over numpy arrays.

Read ``roofline`` first (how an operation's time follows from its FLOP, bytes and kernels), then ``operations`` (what
each part of a language model's step needs), ``transfer`` (copies and reads), ``evidence`` (which constants a time
rests on, and how well each is known).
"""
