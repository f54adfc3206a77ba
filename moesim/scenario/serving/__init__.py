"""Serving scenarios: from ``serving:`` and ``arrivals:`` to a :class:`~moesim.setup.serving.ServingSetup` and a result.

Read ``schema`` first, then ``arrivals`` (which requests come when), ``tables`` (what a step costs, and how far the
tables are from the forms), ``routing`` (which experts a request's tokens use), ``offloaded`` (steps of a runtime
that offloads experts, measured in the offloading engine), ``build`` and ``summary``.
"""
