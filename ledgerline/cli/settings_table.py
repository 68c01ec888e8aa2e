"""`ledgerline settings`: lists the value of each setting and its origin, without secrets."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ledgerline.cleaning.passwords import without_password
from ledgerline.settings.origins import ValueInForce, values_in_force


def print_settings(console: Console) -> None:
    """Print a table of all settings.

    Raises:
        LedgerlineError: A setting is wrong.
    """
    table = Table("Setting", "Value", "From", box=None, pad_edge=False)
    for each in values_in_force():
        cells = (each.setting.name, _displayed(each), each.origin)
        table.add_row(*(Text(cell, overflow="fold") for cell in cells))
    console.print(table)


def _displayed(each: ValueInForce) -> str:
    if each.setting.hides == "value" and each.value:
        return "***"
    return without_password(each.value) if "://" in each.value else each.value
