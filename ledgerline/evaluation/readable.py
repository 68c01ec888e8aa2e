"""Numbers as texts and pages show them."""


def number(value: float | None) -> str:
    """Format with four digits behind the point, more for a number that would read as 0; "" for None."""
    if value is None:
        return ""
    if value != 0 and abs(value) < 0.0001:
        return f"{value:.1e}"
    return f"{value:.4f}" if abs(value) < 1e6 else f"{value:.7g}"
