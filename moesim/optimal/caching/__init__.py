"""Optima of caching: the fewest fetches, and the cheapest.

Read ``requests`` first (what is asked for, and the two capacity models), then ``fewest`` (experts of equal size, in one
pass), ``intervals`` (costs and sizes of their own), ``split`` (slots by layer) and ``cpu`` (a miss may run there).
"""
