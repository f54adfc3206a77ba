"""Policies: what to keep, what to fetch early, what to do on a miss. One file each.

Read ``api`` first: it holds the contract of each family. Then ``caching/lru.py``, the shortest policy, and
``structures``, the lists and heaps on flat arrays that policies are made of. To add a policy, add one file to its
family's folder: the scenario schema, the command line and the conformance tests find it by its name.
"""
