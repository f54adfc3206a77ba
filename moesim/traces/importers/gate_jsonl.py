"""JSON lines ``{"layer_idx", "token_idx", "selected_ids", "gate_weights"}``, one for each token and layer.

Tokens are numbered through the file by ``token_idx``; lines may stand in any order. A line with fewer experts than others is
a token that used fewer. ``gate_weights`` may be missing from all lines.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import PositiveInt

from moesim.errors import TraceError
from moesim.traces.array_files import Array
from moesim.traces.importers._number_lines import Piece, Table, pieces, read_table, refuse, shown, structure_of
from moesim.traces.importers._requests import Numbers, request_columns
from moesim.traces.importers._routing import Routing, imported_trace
from moesim.traces.trace import RoutingTrace
