"""Formats numbers for messages and pages."""


def number(value: float | None) -> str:
    """Format a number with four decimals, or in scientific notation if that would be 0; "" for None."""
    if value is None:
        return ""
    if value != 0 and abs(value) < 0.0001:
        return f"{value:.1e}"
    return f"{value:.4f}" if abs(value) < 1e6 else f"{value:.7g}"
