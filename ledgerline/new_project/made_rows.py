"""Generates the example rows of a new project: sales of shops in half a year. They are always the same.

Sales depend on weekdays and weather, and demand grows, so that a model trained on the last month is better
than a model trained on the month before.
"""

import csv
import math
from collections.abc import Iterator
from datetime import date, timedelta
from io import StringIO
from random import Random
from typing import NamedTuple

from ledgerline.new_project.kind import Kind

FIRST_DAY, LAST_DAY = date(2025, 1, 1), date(2025, 6, 30)
SEED = 2025

SHOPS = {
    "Bridge": 0.7,
    "Castle": 1.1,
    "Garden": 0.8,
    "Harbour": 1.3,
    "Market": 1.6,
    "Mill": 0.6,
    "Station": 1.9,
    "Tower": 1.0,
}
TIMES = {"morning": 1.0, "midday": 0.7, "afternoon": 0.8, "evening": 0.5}
WEEKDAYS = {
    "Monday": 0.9,
    "Tuesday": 0.85,
    "Wednesday": 0.9,
    "Thursday": 0.95,
    "Friday": 1.1,
    "Saturday": 1.4,
    "Sunday": 0.75,
}
GROWTH = 1.05  # factor for each month
PIECES = 100  # sales of an average shop on an average morning
LUCK_OF_DAY, LUCK_OF_ROW = 0.03, 0.12  # standard deviations of a factor's logarithm


class Sales(NamedTuple):
    """Demand and stock of a shop in a part of a day."""

    date: str
    shop: str
    weekday: str
    time: str
    temperature: float
    rain: float
    demand: int
    stock: int

    def outcome(self, kind: Kind) -> str | int:
        """Return the outcome that a model of this kind predicts."""
        if kind is Kind.BINARY:
            return str(self.demand > self.stock)
        if kind is Kind.MULTICLASS:
            ratio = self.demand / self.stock
            return "low" if ratio < 0.85 else "high" if ratio > 1.25 else "normal"
        return self.demand


def made_rows(kind: Kind) -> str:
    """Return the content of the CSV file for a kind of prediction."""
    text = StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["date", "shop", "weekday", "time", "temperature", "rain", kind.outcome])
    for sales in _sales(Random(SEED)):  # noqa: S311 (example rows, the same each time)
        writer.writerow([*sales[:6], sales.outcome(kind)])
    return text.getvalue()


def _sales(random: Random) -> Iterator[Sales]:
    day = FIRST_DAY
    while day <= LAST_DAY:
        weekday = list(WEEKDAYS)[day.weekday()]
        season = math.cos(2 * math.pi * (day.timetuple().tm_yday - 20) / 365)
        temperature = round(11 - 9 * season + random.gauss(0, 3), 1)
        rain = round(random.expovariate(0.25), 1) if random.random() < 0.4 else 0.0
        months = (day - FIRST_DAY).days / 30
        level = PIECES * GROWTH**months * WEEKDAYS[weekday] * math.exp(random.gauss(0, LUCK_OF_DAY))
        level *= (1 + 0.01 * (temperature - 10)) * (1 - 0.02 * min(rain, 15))
        for shop, size in SHOPS.items():
            for time, share in TIMES.items():
                demand = round(level * size * share * math.exp(random.gauss(0, LUCK_OF_ROW)))
                stock = round(1.15 * PIECES * size * share)
                yield Sales(day.isoformat(), shop, weekday, time, temperature, rain, demand, stock)
        day += timedelta(days=1)
