"""How numbers are written on a page: thousands separators, sensible digits, units; other things as text."""

from __future__ import annotations

from collections.abc import Sequence
from math import copysign, floor, isfinite, log10
from typing import Any, TypeGuard

NONE = "–"  # stands for a value that is not there
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def count(value: Any) -> str:
    """A whole number in full.

    >>> count(14716171), count(None)
    ('14,716,171', '–')
    """
    return f"{value:,.0f}" if is_number(value) else plain(value)


def short(value: Any, unit: str = "") -> str:
    """Three digits and a decimal prefix.

    >>> short(47063040000), short(58864684, "B"), short(960)
    ('47.1 G', '58.9 MB', '960')
    """
    if not is_number(value):
        return plain(value)
    for size, prefix in PREFIXES:
        if abs(value) >= 0.9995 * size:
            return f"{_three_digits(value / size)} {prefix}{unit}"
    return f"{value:,.0f} {unit}".strip()


def times(value: Any) -> str:
    """A ratio.

    >>> times(4.291), times(0.8912), times(12.6), times(1234)
    ('4.3×', '0.89×', '13×', '1,234×')
    """
    if not is_number(value):
        return plain(value)
    return f"{value:,.0f}×" if value >= 9.95 else f"{value:.1f}×" if value >= 0.995 else f"{value:.2g}×"


def compared(factor: float, gain: str, loss: str) -> str:
    """A positive ratio as what was won, or lost.

    >>> compared(4, "faster", "slower"), compared(0.5, "faster", "slower")
    ('4.0× faster', '2.0× slower')
    """
    return f"{times(factor)} {gain}" if factor >= 1 else f"{times(1 / factor)} {loss}"


def degree(value: Any) -> str:
    """A number of agreement or difference, usually from 0 to 1; what is not quite 1 is never written as 1.

    >>> degree(0.97712), degree(0.99884), degree(0.999999), degree(0.0077231), degree(4.2e-5), degree(1), degree(12.345)
    ('0.977', '0.9988', '0.999999', '0.0077', '4.2×10⁻⁵', '1', '12.3')
    """
    if not is_number(value):
        return plain(value)
    if value in (-1, 0, 1):
        return str(int(value))
    if abs(value) < 0.001:
        digits, power = f"{value:.1e}".split("e")
        return f"{digits}×10{str(int(power)).translate(SUPERSCRIPT)}"
    if abs(value) < 0.1:
        return f"{value:.2g}"
    if abs(value) > 1:
        return _three_digits(value)
    gap = 1 - abs(value)
    if gap >= 0.005:
        return f"{value:.3f}"
    decimals = min(8, 1 - floor(log10(gap)))
    nearest = copysign(min(abs(value), 1 - 10.0**-decimals), value)
    return f"{nearest:.{decimals}f}".rstrip("0")


def percent(fraction: Any) -> str:
    """A fraction as a percentage.

    >>> percent(0.9771), percent(0.99996), percent(1), percent(0.0004)
    ('97.7 %', '99.996 %', '100 %', '0.04 %')
    """
    if not is_number(fraction):
        return plain(fraction)
    if fraction in (0, 1):
        return f"{fraction * 100:.0f} %"
    gap = min(abs(fraction), abs(1 - fraction)) * 100
    decimals = 1 if gap >= 0.095 else min(6, -floor(log10(gap)))
    return f"{fraction * 100:.{decimals}f} %"


def size(pixels: Any) -> str:
    """Height and width as people say a picture's size, width first; other sizes in their own order.

    >>> size([320, 480]), size([64]), size(224)
    ('480×320', '64', '224')
    """
    if not isinstance(pixels, Sequence) or isinstance(pixels, str):
        return plain(pixels)
    return "×".join(str(p) for p in (reversed(pixels) if len(pixels) == 2 else pixels))


def shape(lengths: Any) -> str:
    """Lengths in their own order.

    >>> shape([64, 3, 7, 7]), shape(None)
    ('64×3×7×7', '–')
    """
    return "×".join(map(str, lengths)) if isinstance(lengths, list | tuple) else plain(lengths)


def plain(value: Any) -> str:
    """Anything as a reader would write it.

    >>> plain([4, 8]), plain(True), plain(None), plain(3.14159), plain(20480)
    ('4, 8', 'yes', '–', '3.14', '20,480')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return degree(value) if isfinite(value) else NONE
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value))
    if isinstance(value, dict):
        return ", ".join(f"{words(key)} {plain(item)}" for key, item in value.items())
    return NONE if value is None else str(value)


def words(name: Any) -> str:
    """A key as words.

    >>> words("mean_absolute_difference")
    'mean absolute difference'
    """
    return str(name).replace("_", " ").replace("macs", "MACs")


def _three_digits(value: float) -> str:
    decimals = max(0, 2 - floor(log10(abs(value) * 1.0005)))
    return f"{value:,.{decimals}f}"
