"""Quantities with units, parsed in one place.

Inside moesim everything is SI: seconds, bytes, FLOP, watts, plain numbers. Outside (YAML, command line)
a quantity is a string with a unit: ``"64 GiB"``, ``"25 GB/s"``, ``"10 us"``. A bare number is refused,
because YAML reads ``1e9`` as text and a reader can't tell GB from GiB.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

_DECIMAL = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}
_BYTES = {f"{prefix}B": factor for prefix, factor in (_DECIMAL | _BINARY).items()}
_BITS = {f"{prefix}{bit}": factor / 8 for prefix, factor in _DECIMAL.items() for bit in ("b", "bit")}
_FLOPS = {f"{prefix}{name}": factor for prefix, factor in _DECIMAL.items() for name in ("FLOPS", "FLOP/s", "OPS")}

_SHORT = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}

#: The units of each dimension, and the factor that turns one into the SI unit named in the key's comment.
UNITS: dict[str, dict[str, float]] = {
    "bytes": _BYTES,
    "bandwidth": {f"{unit}/s": factor for unit, factor in (_BYTES | _BITS).items()},  # bytes per second
    "time": _SHORT | {"min": 60.0, "h": 3600.0, "d": 86400.0, "years": 365.25 * 86400},  # seconds
    "compute_rate": _FLOPS,  # operations per second
    "frequency": {"Hz": 1.0, "kHz": 1e3, "MHz": 1e6, "GHz": 1e9},  # per second
    "power": {"W": 1.0, "kW": 1e3, "mW": 1e-3},  # watts
    "money": {"USD": 1.0, "$": 1.0},  # US dollars
    "money_rate": {"USD/h": 1 / 3600, "$/h": 1 / 3600},  # US dollars per second
    "energy_price": {"USD/kWh": 1 / 3.6e6, "$/kWh": 1 / 3.6e6},  # US dollars per joule
    "request_rate": {"/s": 1.0, "/min": 1 / 60, "/h": 1 / 3600, "/d": 1 / 86400},  # requests per second
    "io_rate": {"IOPS": 1.0, "kIOPS": 1e3, "MIOPS": 1e6},  # operations per second
}
_EXAMPLE = {
    "bytes": "24 GiB",
    "bandwidth": "25 GB/s",
    "time": "10 us",
    "compute_rate": "165 TFLOPS",
    "frequency": "2.5 GHz",
    "power": "450 W",
    "money": "1599 USD",
    "money_rate": "0.40 USD/h",
    "energy_price": "0.15 USD/kWh",
    "request_rate": "10 /s",
    "io_rate": "600 kIOPS",
}
_PATTERN = re.compile(r"\s*([+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(\S.*?)?\s*$", re.ASCII)


def parse(text: Any, dimension: str) -> float:
    """The SI value of a quantity such as ``"64 GiB"``.

    Raises:
        ValueError: not a string, no or an unknown unit, negative, infinite or not a number.
    """
    example = _EXAMPLE[dimension]
    if not isinstance(text, str):
        raise ValueError(f"a quantity needs a unit, as in {example!r}")
    match = _PATTERN.match(text)
    if match is None:
        raise ValueError(f"not a quantity; write a number and a unit, as in {example!r}")
    number, unit = float(match[1].replace("_", "")), match[2] or ""
    if unit not in UNITS[dimension]:
        what = f"unknown unit {unit!r}" if unit else "a quantity needs a unit"
        raise ValueError(f"{what}; write it as in {example!r}")
    value = number * UNITS[dimension][unit]
    if not math.isfinite(value) or value < 0:
        raise ValueError("must be finite and not negative")
    return value


def _quantity(dimension: str, whole: bool = False) -> tuple[BeforeValidator, WithJsonSchema]:
    def read(value: Any) -> float | int:
        si = parse(value, dimension)
        return round(si) if whole else si

    schema = {"type": "string", "description": f"a quantity with a unit, as in '{_EXAMPLE[dimension]}'"}
    return BeforeValidator(read), WithJsonSchema({**schema, "examples": [_EXAMPLE[dimension]]})


Bytes = Annotated[int, *_quantity("bytes", whole=True)]
BytesPerSecond = Annotated[float, *_quantity("bandwidth")]
Seconds = Annotated[float, *_quantity("time")]
OperationsPerSecond = Annotated[float, *_quantity("compute_rate")]
Hertz = Annotated[float, *_quantity("frequency")]
Watts = Annotated[float, *_quantity("power")]
Usd = Annotated[float, *_quantity("money")]
UsdPerSecond = Annotated[float, *_quantity("money_rate")]
IoPerSecond = Annotated[float, *_quantity("io_rate")]


def format_bytes(count: float) -> str:
    """``1.5e9`` -> ``"1.50 GB"`` (decimal prefixes, as bandwidths use them)."""
    return _with_prefix(count, "B", [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, "")])


def format_seconds(seconds: float | None) -> str:
    """``0.0123`` -> ``"12.3 ms"``; None -> ``"–"`` (undefined, which is not zero)."""
    if seconds is None:
        return "–"
    return _with_prefix(seconds, "s", [(1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n")])


def format_joules(joules: float) -> str:
    """``1234.5`` -> ``"1.23 kJ"``."""
    return _with_prefix(joules, "J", [(1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m")])


def format_usd(usd: float) -> str:
    """``0.4567`` -> ``"0.457 USD"``."""
    return f"{usd:,.0f} USD" if usd >= 999.5 else f"{usd:#.3g} USD"


def format_bandwidth(bytes_per_s: float) -> str:
    """``2.6e10`` -> ``"26.0 GB/s"``."""
    return format_bytes(bytes_per_s) + "/s"


def _with_prefix(value: float, unit: str, prefixes: list[tuple[float, str]]) -> str:
    if value == 0:
        return f"0 {unit}"
    for factor, prefix in prefixes:
        if abs(value) >= factor * 0.9995:
            return f"{value / factor:#.3g} {prefix}{unit}".replace(". ", " ")
    factor, prefix = prefixes[-1]
    return f"{value / factor:.3g} {prefix}{unit}"
