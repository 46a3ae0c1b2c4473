"""Metrics against scikit-learn and counts by hand; scores for outliers on cases where log p(x) itself fails."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from hybridkern.hybrid import metrics, scores

RNG = np.random.default_rng(0)
CASES = {
    "apart": (RNG.normal(2, 1, 200), RNG.normal(0, 1, 300)),
    "ties": (RNG.integers(2, 7, 150).astype(float), RNG.integers(0, 6, 80).astype(float)),
    "reversed": (RNG.normal(-1, 1, 50), RNG.normal(1, 1, 70)),
    "all equal": (np.zeros(5), np.zeros(7)),
    "single": (np.ones(1), np.zeros(1)),
    "infinite": (np.array([1.0, 2.0, np.inf]), np.array([-np.inf, 0.0, 1.5])),
}
every_case = pytest.mark.parametrize("case", CASES)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_probabilities_of_16_bits_are_probabilities(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(2000, 10, generator=generator), torch.randint(10, (2000,), generator=generator)
    p = torch.softmax(logits.to(dtype), 1)
    exact = torch.softmax(logits.double(), 1)
    assert metrics.ece(p, labels) == pytest.approx(metrics.ece(exact, labels), abs=0.01)
    assert metrics.accuracy_confidence(p, labels).share[0] == 1
    with pytest.raises(ValueError, match="no logits"):
        metrics.ece(p * 1.05, labels)


@every_case
def test_detection(case: str) -> None:
    inside, outside = CASES[case]
    pair = torch.from_numpy(inside), torch.from_numpy(outside)
    truth = np.r_[np.ones(len(inside)), np.zeros(len(outside))]
    values = np.clip(np.r_[inside, outside], -1e9, 1e9)
    assert metrics.auroc(*pair) == pytest.approx(roc_auc_score(truth, values), rel=1e-12)
    assert metrics.aupr(*pair) == pytest.approx(average_precision_score(truth, values), rel=1e-12)
    thresholds = [t for t in np.unique(inside) if np.mean(inside >= t) >= 0.95]
    assert metrics.fpr95(*pair) == np.mean(outside >= max(thresholds))


def test_detection_of_a_million_scores_is_not_quadratic() -> None:
    generator = torch.Generator().manual_seed(0)
    inside = torch.randn(500_000, generator=generator) + 1
    outside = torch.randn(500_000, generator=generator)
    expected = 0.5 * (1 + math.erf(0.5))
    assert metrics.auroc(inside, outside) == pytest.approx(expected, abs=2e-3)


def _classified(n: int = 500) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    p = torch.softmax(3 * torch.randn(n, 4, generator=generator, dtype=torch.float64), 1)
    return p, torch.multinomial(p, 1, generator=generator)[:, 0]


def test_nll() -> None:
    p, y = _classified()
    expected = log_loss(y.numpy(), p.numpy())
    assert metrics.nll(p.log(), y) == pytest.approx(expected, rel=1e-10)
    assert metrics.nll(p.log() + 7, y) == pytest.approx(expected, rel=1e-10), "logits of any offset"


def test_calibration() -> None:
    p, y = _classified()
    confidence, predicted = p.numpy().max(1), p.numpy().argmax(1)
    correct = predicted == y.numpy()
    expected = 0.0
    for i in range(15):
        inside = (confidence > i / 15) & (confidence <= (i + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(confidence[inside].mean() - correct[inside].mean())
    assert metrics.ece(p, y) == pytest.approx(expected, rel=1e-10)
    assert metrics.ece(p, y) < 0.1, "labels drawn from the probabilities"
    certain = torch.eye(4, dtype=torch.float64)[torch.tensor([0, 1, 2, 3])]
    assert metrics.ece(certain, torch.tensor([0, 1, 2, 3])) == 0
    assert metrics.ece(certain, torch.tensor([1, 2, 3, 0])) == 1
    table = metrics.reliability(p, y, bins=10)
    assert table.examples.sum() == 500 and table.accuracy[:2].isnan().all(), "four classes: never below 1/4"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_a_confidence_that_is_a_threshold_reaches_it_in_every_dtype(dtype: torch.dtype) -> None:
    """As votes of members have it. In float32 0.9 lies below the 0.9 of float64, and 0.6 above it."""
    for bins in (5, 10, 15, 25):
        votes = range(bins // 2 + 1, bins + 1)
        p = torch.tensor([[k / bins, 1 - k / bins] for k in votes], dtype=torch.float64).to(dtype)
        y = torch.zeros(len(p), dtype=torch.int64)
        assert metrics.reliability(p, y, bins).examples.tolist() == [int(k + 1 in votes) for k in range(bins)], bins
        curve = metrics.accuracy_confidence(p, y, [k / bins for k in votes])
        assert (curve.share * len(p)).round().tolist() == list(range(len(p), 0, -1)), bins
        assert curve.threshold.tolist() == [k / bins for k in votes]


def test_accuracy_confidence() -> None:
    p, y = _classified()
    confidence, correct = p.max(1).values, p.argmax(1) == y
    curve = metrics.accuracy_confidence(p, y, [0.0, 0.5, 0.9, 1.0])
    assert curve.accuracy[0] == correct.double().mean() and curve.share[0] == 1
    assert curve.accuracy[2] == correct[confidence >= 0.9].double().mean()
    assert curve.share[1] == (confidence >= 0.5).double().mean()
    assert curve.accuracy[3].isnan() and curve.share[3] == 0
    assert metrics.accuracy_confidence(p, y).threshold.tolist() == [i / 10 for i in range(10)]


def test_coverage_risk() -> None:
    values = torch.tensor([3.0, 1.0, 2.0, 2.0, 0.0])
    losses = torch.tensor([0.0, 1.0, 0.0, 1.0, 1.0])
    curve = metrics.coverage_risk(values, losses)
    assert curve.threshold.tolist() == [3, 2, 1, 0]
    np.testing.assert_allclose(curve.coverage, [0.2, 0.6, 0.8, 1.0])
    np.testing.assert_allclose(curve.risk, [0, 1 / 3, 0.5, 0.6])
    assert curve.area == pytest.approx(0.4 / 3 + 0.2 * 0.5 + 0.2 * 0.6)


def test_typicality_rejects_what_is_too_likely() -> None:
    """The origin has the highest density of a Gaussian in 100 dimensions, and no sample comes near it."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 100, generator=generator)
    log_p = -0.5 * x.square().sum(1)
    outliers = -0.5 * (0.1 * x).square().sum(1)
    assert metrics.auroc(log_p[:200], outliers) == 0
    typical = [scores.typicality(part, log_p[200:]) for part in (log_p[:200], outliers)]
    assert metrics.auroc(*typical) > 0.999
    groups = scores.typicality(log_p[:200].view(20, 10), log_p[200:])
    expected = -(log_p[:200].view(20, 10).mean(1) - log_p[200:].mean()).abs()
    torch.testing.assert_close(groups, expected)


def test_likelihood_ratio_removes_the_background() -> None:
    """Ten dimensions mean something and ninety are a background that varies much more; outliers have a dull one."""
    generator = torch.Generator().manual_seed(0)

    def log_p(meaning: float, spread: float) -> tuple[torch.Tensor, torch.Tensor]:
        x = meaning + torch.randn(300, 10, generator=generator)
        background = spread * torch.randn(300, 90, generator=generator)
        shared = -0.5 * background.square().sum(1)
        return -0.5 * x.square().sum(1) + shared, -0.5 * (x / 3).square().sum(1) + shared

    inside, outside = log_p(0.0, 1.0), log_p(2.0, 0.5)
    assert metrics.auroc(inside[0], outside[0]) < 0.5
    assert metrics.auroc(scores.likelihood_ratio(*inside), scores.likelihood_ratio(*outside)) > 0.99


def test_complexity_correction_removes_what_is_simple() -> None:
    """Under one Gaussian a pixel, a constant image is likelier than noise of the data's own distribution."""
    generator = torch.Generator().manual_seed(0)
    data = (128 + 30 * torch.randn(40, 16, 16, generator=generator)).round().clamp(0, 255)
    constant = torch.full((40, 16, 16), 128.0) + torch.arange(40)[:, None, None] % 5

    def log_p(x: torch.Tensor) -> torch.Tensor:
        return (-0.5 * ((x - 128) / 30).square() - math.log(30 * math.sqrt(2 * math.pi))).flatten(1).sum(1)

    assert metrics.auroc(log_p(data), log_p(constant)) == 0
    corrected = [scores.complexity_corrected(log_p(x), scores.code_bits(x.to(torch.uint8))) for x in (data, constant)]
    assert metrics.auroc(*corrected) == 1


def test_code_bits() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (2, 32, 32, 3), generator=generator).to(torch.uint8)
    ramp = (torch.arange(32)[None, None, :] * 7 % 256).expand(2, 32, 32).to(torch.uint8)
    assert (scores.code_bits(noise) >= 8 * 32 * 32 * 3).all(), "noise cannot be compressed"
    assert (scores.code_bits(ramp) < 600).all()
    assert scores.code_bits(noise).shape == (2,) and scores.code_bits(noise[:0]).shape == (0,)


GOOD = torch.tensor([[0.5, 0.5]])
BAD = [
    (lambda: metrics.auroc(torch.tensor([math.nan]), torch.ones(1)), ValueError, "in_scores: got nan in row 0"),
    (lambda: metrics.aupr(torch.ones(1), torch.ones(0)), ValueError, r"out_scores: got shape \(0,\), expected"),
    (lambda: metrics.fpr95(torch.ones(2, 2), torch.ones(1)), ValueError, r"in_scores: got shape \(2, 2\)"),
    (lambda: metrics.auroc([1.0], torch.ones(1)), TypeError, "in_scores: got list, expected a floating-point"),
    (lambda: metrics.ece(torch.tensor([[2.0, 1.0]]), torch.tensor([0])), ValueError, r"row 0 is \[2.0, 1.0\], .* log"),
    (lambda: metrics.ece(torch.tensor([[math.nan, 1.0]]), torch.tensor([0])), ValueError, "probabilities: row 0 is"),
    (lambda: metrics.ece(GOOD, torch.tensor([2])), ValueError, "y: got label 2, expected 0 to 1"),
    (lambda: metrics.ece(GOOD, torch.tensor([0]), bins=0), ValueError, "bins: got 0, expected a positive integer"),
    (lambda: metrics.accuracy_confidence(GOOD, torch.tensor([0]), [2.0]), ValueError, "thresholds: got 2.0"),
    (lambda: metrics.nll(GOOD[0], torch.tensor([0])), ValueError, r"logits: got shape \(2,\), expected"),
    (lambda: metrics.coverage_risk(torch.ones(2), torch.ones(3)), ValueError, "losses: got 3, expected 2"),
    (lambda: scores.likelihood_ratio(torch.ones(2), torch.ones(3)), ValueError, "log_px_background: got shape"),
    (lambda: scores.typicality(torch.ones(2), torch.ones(0)), ValueError, "reference: got shape"),
    (lambda: scores.typicality(torch.ones(1, 2, 3), torch.ones(2)), ValueError, r"log_px: got shape \(1, 2, 3\)"),
    (lambda: scores.typicality(torch.tensor([1, 2]), torch.ones(2)), TypeError, "log_px: got torch.int64, expected"),
    (lambda: scores.complexity_corrected(torch.tensor([1]), torch.ones(1)), TypeError, "log_px: got torch.int64"),
    (lambda: scores.complexity_corrected(torch.ones(2), torch.ones(3)), ValueError, "code_bits: got shape"),
    (lambda: scores.code_bits(torch.ones(2, 4, 4)), TypeError, "images: got torch.float32, expected"),
    (lambda: scores.code_bits(torch.ones(4, 4).to(torch.uint8)), ValueError, r"images: got shape \(4, 4\)"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_arguments(call: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_coverage_is_of_float64() -> None:
    curve = metrics.coverage_risk(torch.arange(7.0), torch.ones(7))
    assert curve.coverage.dtype is torch.float64
    np.testing.assert_allclose(curve.coverage.numpy(), np.arange(1, 8) / 7, rtol=1e-15)
    assert abs(curve.area - 1) < 1e-15


def test_long_codes_beside_likelihoods_in_low_precision() -> None:
    found = scores.complexity_corrected(torch.tensor([-1.0], dtype=torch.float16), torch.tensor([1e5]).double())
    assert found.dtype is torch.float32 and found.item() == pytest.approx(1e5 - 1 / math.log(2))
