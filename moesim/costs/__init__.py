"""Seconds from specs and sizes: pure functions that broadcast over numpy arrays.

Read ``fitted`` first (what a form with fitted constants is), then one form (``moe_layer``, ``gemm``, ``attention``,
``collective``, ``dispatch``), ``kernels`` (forms on one GPU, with what each price rests on), ``resident`` (a forward
pass of a model that lies in GPU memory: what serving and expert parallelism price). An offloading node is priced by
``node_times``, expert by expert; ``transfer`` (host to GPU), ``flash`` (drive to host) and ``cpu_expert`` are what it
needs beside the GPU; ``evidence`` says which constants a time rests on, and how well each is known.
"""
