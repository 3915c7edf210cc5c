"""How figures are written: with three digits that count, and in a unit that suits them."""

from __future__ import annotations

from benches.results import Spread

UNITS = {
    "second": {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9},
    "byte": {"GiB": 2.0**30, "MiB": 2.0**20, "KiB": 2.0**10, "bytes": 1.0},
    "integer": {"": 1.0},
}
"""The names of a unit's multiples, the largest first."""


def number(value: float) -> str:
    """A number, as short as it can be read."""
    places = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:,.{places}f}"


def multiple(value: float, unit: str) -> tuple[str, float]:
    """The largest multiple of a unit that a value reaches."""
    multiples = list(UNITS[unit].items())
    return next((m for m in multiples if value >= m[1]), multiples[-1])


def quantity(value: float, unit: str) -> str:
    """A value, such as 1.25 µs."""
    name, size = multiple(value, unit)
    return f"{number(value / size)} {name}".rstrip()


def quantities(spread: Spread, unit: str) -> str:
    """The ends of a range, such as 1.20 to 1.31 µs; nothing where there is but one value."""
    if spread.low == spread.high:
        return ""
    name, size = multiple(spread.middle, unit)
    return f"{number(spread.low / size)} to {number(spread.high / size)} {name}".rstrip()


def ratio(value: float, *, fraction: bool | None = None) -> str:
    """A ratio with three digits, such as 0.985, or with two where it is a fraction: 1/120."""
    if fraction is None:
        fraction = value < 0.1
    return f"1/{_two_digits(1 / value)}" if fraction and value < 1 else _short(value)


def ratios(spread: Spread, *, fraction: bool | None = None) -> str:
    """A ratio with its ends, such as 0.98 (0.95 to 1.02)."""
    if fraction is None:
        fraction = spread.middle < 0.1
    middle, low, high = (
        ratio(value, fraction=fraction) for value in (spread.middle, spread.low, spread.high)
    )
    return middle if spread.low == spread.high else f"{middle} ({low} to {high})"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"


def _two_digits(value: float) -> str:
    rounded = float(f"{value:.2g}")
    return f"{rounded:,.0f}" if rounded >= 10 else f"{rounded:.1f}"
