"""Optima of placing experts on ranks (GPUs, or what holds experts together).

Read ``balance`` first (each expert once, the fullest rank as empty as possible), then ``replicas`` (copies), ``split``
(each batch's tokens over the copies), ``affinity`` (tokens that stay from layer to layer) and ``reach`` (how many ranks
or nodes a token needs).
"""
