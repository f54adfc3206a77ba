"""Where physical experts lie. The contract stands in :mod:`moesim.policies.api`."""
