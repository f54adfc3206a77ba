"""Numbers as a reader of a report wants them. What is undefined is a dash, never zero."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from moesim.results.result import ConstantRow
from moesim.units import format_bandwidth, format_bytes, format_joules, format_seconds, format_usd

UNDEFINED = "–"


def percent(share: float | None) -> str:
    """``0.947`` -> ``"94.7 %"``; two digits of what is below one percent."""
    if share is None:
        return UNDEFINED
    return f"{100 * share:.2g} %" if 0 < abs(share) < 0.01 else f"{100 * share:.1f} %"


def number(value: float | None) -> str:
    """Three digits, without an exponent: ``1234.5`` -> ``"1,234"``, ``0.5`` -> ``"0.500"``."""
    if value is None:
        return UNDEFINED
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:#.3g}".rstrip(".")


def times(ratio: float | None) -> str:
    """``1.8`` -> ``"1.80×"``."""
    return UNDEFINED if ratio is None else f"{ratio:.2f}×"


def slower(ratio: float) -> str:
    """``1.068`` -> ``"6.8 % slower"``, ``2.31`` -> ``"2.31× as slow"``: a ratio of times above 1."""
    return f"{100 * (ratio - 1):.1f} % slower" if ratio < 2 else f"{times(ratio)} as slow"


def interval(bounds: tuple[float, float] | None) -> str:
    """``(1.036, 1.096)`` -> ``"1.036–1.096"``."""
    return UNDEFINED if bounds is None else f"{bounds[0]:.3f}–{bounds[1]:.3f}"


def count(value: int | None) -> str:
    """``1234567`` -> ``"1,234,567"``."""
    return UNDEFINED if value is None else f"{value:,}"


def size(value: float | None) -> str:
    """Bytes with a decimal prefix."""
    return UNDEFINED if value is None else format_bytes(value)


def constant(row: ConstantRow) -> str:
    """A card's number with its unit; what is a share by its name, in percent."""
    match row.unit:
        case "FLOP/s":
            return f"{row.value / 1e12:.4g} TFLOP/s"
        case "1":
            is_share = row.name.endswith(("share", "efficiency"))
            return f"{100 * row.value:.3g} %" if is_share else f"{row.value:.4g}"
        case "B/s":
            return format_bandwidth(row.value)
        case "s":
            return format_seconds(row.value)
        case "1/s":
            return f"{row.value:,.0f} per second"
        case "W":
            return f"{row.value:.4g} W"


def joules(value: float | None) -> str:
    """``1234.5`` -> ``"1.23 kJ"``."""
    return UNDEFINED if value is None else format_joules(value)


def usd(value: float | None) -> str:
    """``0.4567`` -> ``"0.457 USD"``."""
    return UNDEFINED if value is None else format_usd(value)


def words(name: str) -> str:
    """``"host_memory_bytes"`` -> ``"host memory"``: a key of a Result as text, its unit left to the value."""
    return name.removesuffix("_bytes").replace("_", " ")


def value(key: str, item: Any) -> str:
    """A value of a Result's dictionaries, by what its key says that it is."""
    if item is None or item == []:
        return UNDEFINED
    if isinstance(item, Mapping):
        name = str(item.get("name", ""))
        return ", ".join([name, *(f"{words(k)} {value(k, v)}" for k, v in item.items() if k != "name")])
    if isinstance(item, list):
        return ", ".join(str(entry) for entry in item)
    if key.endswith("_bytes"):
        return format_bytes(item)
    return f"{item:,}" if isinstance(item, int) and not isinstance(item, bool) else str(item)


FILTERS: Mapping[str, Callable[..., str]] = {
    "percent": percent,
    "number": number,
    "times": times,
    "interval": interval,
    "count": count,
    "bytes": size,
    "seconds": format_seconds,
    "joules": joules,
    "usd": usd,
    "constant": constant,
    "words": words,
}
