"""Scenarios: from YAML to what an engine runs.

Read ``schema`` first (what a scenario may say, and every default), then ``load`` (file and overrides to a checked
:class:`Scenario`), ``parts`` and ``workload`` (what it names, and which tokens run), ``build`` (all of it evaluated
into a ``Setup``), ``run`` and ``summary`` (what the engine left behind, as a ``Result``).
"""

from moesim.scenario.load import ScenarioFile, load_scenario
from moesim.scenario.schema import Scenario

__all__ = ["Scenario", "ScenarioFile", "load_scenario"]
