"""Tests the report of a comparison, and its plots."""

import io
import json
import re
import sys
import warnings
from dataclasses import asdict, replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ledgerline.evaluation import plots, report
from ledgerline.evaluation.calibration import CalibrationPoint
from ledgerline.evaluation.comparison import Comparison, compare
from ledgerline.evaluation.kinds import Binary, Multiclass, Quantiles, Regression
from ledgerline.evaluation.metrics import row_metric
from ledgerline.evaluation.policy import Policy, default_policy, evaluate
from ledgerline.evaluation.prediction_kind import PredictionKind
from ledgerline.evaluation.rulings import Findings, Latencies
from ledgerline.evaluation.slices import SliceDifference
from ledgerline.settings.extras import MissingExtraError

ROWS = 600
RANDOM = np.random.default_rng(1)
KNOWN = RANDOM.normal(size=ROWS)
OUTCOME = KNOWN + RANDOM.normal(size=ROWS)
POSITIVES = int((OUTCOME > 0).sum())
PROBABLE = 1 / (1 + np.exp(-KNOWN))
CASES: dict[str, tuple[PredictionKind, Any, Any, Any]] = {
    "binary": (Binary(), OUTCOME > 0, PROBABLE, np.full(ROWS, 0.5)),
    "multiclass": (
        Multiclass(("no", "yes")),
        np.where(OUTCOME > 0, "yes", "no"),
        np.stack([1 - PROBABLE, PROBABLE], axis=1),
        np.full((ROWS, 2), 0.5),
    ),
    "regression": (Regression(), OUTCOME * 1e12, KNOWN * 1e12, np.zeros(ROWS)),
    "quantiles": (
        Quantiles((0.1, 0.5, 0.9)),
        OUTCOME * 1e-12,
        (KNOWN[:, None] + np.array([-1.3, 0, 1.3])) * 1e-12,
        np.tile([-2e-12, 0, 2e-12], (ROWS, 1)),
    ),
}


def compared(name: str, policy: Policy | None = None, **options: Any) -> Comparison:
    kind, outcome, staging, production = CASES[name]
    policy = policy or default_policy(kind)
    return compare(
        kind,
        outcome,
        staging,
        production,
        **{
            "clusters": np.arange(ROWS) // 20,
            "slices": {"region": np.arange(ROWS) % 2, "rare": np.arange(ROWS) < 30},
            "metrics": policy.metrics(kind),
            "resamples": 100,
            "production_name": "version 3 <b>",
            **options,
        },
    )


def document(found: Comparison, policy: Policy) -> dict[str, Any]:
    rulings = evaluate(policy, Findings(found, Latencies(1.5, None), ("Staging does not accept <hour>.",)))
    return json.loads(
        json.dumps(
            {
                "model": "heat",
                "version": 4,
                "decision": "refused",
                "holdout": {"rows": found.rows, "first_partition": "2013-06-01", "sha256": "abc"},
                "training_data": {"4": {"trained_on": "2013-01-01/2013-05-31"}, "3": {"month": "missing"}},
                "policy": policy.as_dict(),
                "comparison": found.as_dict(),
                "latency": {"staging_ms": 1.5, "production_ms": None},
                "artifact_bytes": {"staging": 1000, "production": None},
                "training_psi": {"wind": 0.02, "hour": 0.3},
                "replay": {"production_ms": 2.0},
                "rulings": [asdict(ruling) for ruling in rulings],
                "trace_id": "00ff",
            },
            allow_nan=False,
        )
    )


class Text(HTMLParser):
    """Reads a page as a person does."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.feed(page)

    def handle_data(self, data: str) -> None:
        self.parts.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.parts).split())


@pytest.mark.parametrize(
    ("name", "outcomes", "gate"),
    [
        ("binary", f"{POSITIVES} of them positive", "calibrated: Calibrated(most=0.05)"),
        (
            "multiclass",
            f"{ROWS - POSITIVES} of them no, {POSITIVES} of them yes",
            "no_slice_worse: NoSliceWorse(most=0.02)",
        ),
        ("regression", "with a mean outcome of", "no_slice_worse: NoSliceWorse(most=0.0)"),
        ("quantiles", "with a mean outcome of", "fast_enough: FastEnough(ratio=1.5)"),
    ],
)
def test_the_report_has_the_compared_versions_and_the_gates(name: str, outcomes: str, gate: str) -> None:
    kind = CASES[name][0]
    found = compared(name)
    page = report.render(document(found, default_policy(kind)), plots.pictures(found), None)
    words = Text(page).words
    assert "heat version 4 against version 3 <b>: refused" in words
    assert f"600 rows in 30 clusters, {outcomes}" in words
    assert gate in words
    assert "first_partition: 2013-06-01" in words
    assert "trained_on: 2013-01-01/2013-05-31" in words
    for each in found.differences:
        assert each.metric in words
    assert "Staging does not accept <hour>." in words
    assert page.count("data:image/png;base64,") == 3
    assert "<b>" not in page
    assert "flight" not in page
    assert "Logged requests" not in words
    assert words.index("hour 0.3000") < words.index("wind 0.0200")


def test_the_page_has_the_numbers_of_each_metric_in_its_own_magnitude() -> None:
    for name in ("regression", "quantiles"):
        found = compared(name)
        decides = found.difference(found.kind.primary_metric)
        words = Text(report.render(document(found, default_policy(found.kind)), {}, None)).words
        interval = re.search(rf"{decides.metric} low (\S+) (\S+) (\S+) (\S+) (\S+)", words)
        assert interval is not None
        numbers = [float(text) for text in interval.groups()]
        expected = [decides.staging, decides.production, decides.gain, decides.low, decides.high]
        assert numbers == pytest.approx(expected, rel=0.05)


def test_the_report_marks_best_and_undefined_values_and_has_custom_metrics() -> None:
    cost = row_metric("cost", lambda outcome, prediction: abs(outcome - prediction))
    kind = Regression()
    policy = default_policy(kind)
    found = replace(compared("regression", metrics=[cost, *kind.metrics]), undefined=("r2", "gini"))
    words = Text(report.render(document(found, policy), {}, None)).words
    assert "Not defined on these rows: r2, gini." in words
    assert "cost low" in words
    assert "r2 high" in words
    quantiles = compared("quantiles")
    assert (
        "interval_coverage 0.8000"
        in Text(report.render(document(quantiles, default_policy(quantiles.kind)), {}, None)).words
    )


def test_the_report_has_logged_requests_if_they_were_replayed() -> None:
    found = compared("binary")
    evidence = document(found, default_policy(Binary()))
    words = Text(report.render(evidence, {}, [("requests", 12), ("answered <differently>", "3 %")])).words
    assert "answered again by staging and production" in words
    assert "requests 12 answered <differently> 3 %" in words


def size(png: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(png)) as image:
        image.verify()
        assert image.format == "PNG"
        return image.size


@pytest.mark.parametrize("name", list(CASES))
def test_each_kind_has_its_pictures(name: str) -> None:
    drawn = plots.pictures(compared(name))
    assert list(drawn) == ["gains", "calibration", "slices"]
    assert all(size(png) >= (480, 360) for png in drawn.values())
    again = plots.pictures(compared(name))
    assert drawn == again


def test_names_with_any_characters_are_drawn() -> None:
    found = compared("multiclass", production_name="_cheap $x_{ \\frac 東京 <b> %s {0}")
    odd = SliceDifference("$_{", "東京 $", 200, 0.1, 0.2, 0.1, 0.0, 0.2)
    points = tuple(CalibrationPoint(i / 30, 0.5, 20, f"_{i}$") for i in range(30))
    found = replace(found, slices=(odd,) * 100, staging_calibration=points)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = plots.pictures(found)
    assert size(drawn["slices"])[1] > 360


def test_a_comparison_without_slices_or_intervals_is_drawn_empty() -> None:
    found = compared("regression", slices={})
    bare = replace(
        found,
        differences=tuple(replace(each, low=None, high=None, at_least=None) for each in found.differences),
    )
    assert all(size(png) == (480, 360) for png in plots.pictures(bare).values())
    page = report.render(document(bare, default_policy(Regression())), {}, None)
    assert "<h2>Slices</h2>" not in page


def test_without_the_extra_for_pictures_a_page_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    found = compared("regression")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert plots.pictures(found) == {}
    assert "<img" not in report.render(document(found, default_policy(Regression())), {}, None)
    with pytest.raises(MissingExtraError, match="A picture of predictions needs the extra `plots`"):
        plots.gains(found)


def test_many_metrics_have_room_for_each() -> None:
    found = compared("binary")
    many = replace(found, differences=found.differences * 4)
    assert size(plots.gains(many))[1] > 1000
