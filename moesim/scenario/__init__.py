"""Scenarios: from YAML to what an engine runs.

Read ``schema`` first (what a scenario may say, and every default), then ``load`` (file and overrides to a checked
:class:`Scenario`) and ``build`` (a scenario with its trace, cards and policies, evaluated into a ``Setup``).
"""

from moesim.scenario.load import ScenarioFile, load_scenario
from moesim.scenario.schema import Scenario

__all__ = ["Scenario", "ScenarioFile", "load_scenario"]
