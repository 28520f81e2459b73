"""Temperature scaling: against a known factor, scipy's minimum, and a split worked by hand."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from fer.evaluation.calibration import LIMIT, apply_temperature, cross_fit, fit_temperature
from fer.evaluation.metrics import expected_calibration_error, risk_coverage


@pytest.fixture(scope="module")
def sample():
    """Logits of 20,000 rows, and labels drawn from their own softmax: calibrated by construction."""
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 2, (20_000, 7))
    labels = (softmax(logits, axis=1).cumsum(axis=1) > generator.random((20_000, 1))).argmax(axis=1)
    return logits, labels


def nll(probabilities, labels):
    return -np.log(probabilities[np.arange(len(labels)), labels]).mean()


@pytest.mark.parametrize("factor", [0.4, 1.0, 3.0])
def test_the_factor_that_logits_were_multiplied_by_is_found(sample, factor):
    logits, labels = sample
    assert fit_temperature(softmax(factor * logits, axis=1), labels) == pytest.approx(factor, rel=0.03)


def test_the_minimum_is_that_of_scipy(sample):
    logits, labels = 3 * sample[0][:500], sample[1][:500]

    def loss(temperature):
        return -log_softmax(logits / temperature, axis=1)[np.arange(500), labels].mean()

    best = minimize_scalar(loss, bounds=(0.1, 10), method="bounded", options={"xatol": 1e-8}).x
    assert fit_temperature(softmax(logits, axis=1), labels) == pytest.approx(best, rel=1e-5)


def test_scaling_lowers_nll_and_ece_of_what_is_too_sure_and_changes_no_label(sample):
    logits, labels = sample
    before = softmax(3 * logits, axis=1).astype(np.float32)
    # of the surest rows float32 leaves probabilities of 0
    after = apply_temperature(before, fit_temperature(before, labels))
    assert nll(after, labels) < nll(before.clip(1e-30), labels) - 0.1
    assert expected_calibration_error(after, labels) < 0.02 < 0.1 < expected_calibration_error(before, labels)
    assert (after.argmax(axis=1) == before.argmax(axis=1)).all()
    np.testing.assert_allclose(after.sum(axis=1), 1)


def test_a_temperature_worked_by_hand():
    # odds of 9 to 1 have the root 3 to 1
    np.testing.assert_allclose(apply_temperature(np.array([[0.9, 0.1]]), 2.0), [[0.75, 0.25]])
    # right in 3 of 4 rows at 9 to 1: the best odds are 3 to 1, the temperature 2
    rows = np.array([[0.9, 0.1]] * 4)
    assert fit_temperature(rows, np.array([0, 0, 0, 1])) == pytest.approx(2.0)


def test_where_every_row_is_right_or_wrong_the_temperature_stays_in_its_limits():
    rows = np.array([[0.9, 0.1]] * 4, np.float32)
    assert fit_temperature(rows, np.zeros(4, int)) == pytest.approx(1 / LIMIT)
    assert fit_temperature(rows, np.ones(4, int)) == pytest.approx(LIMIT)
    assert np.isfinite(apply_temperature(np.array([[1.0, 0.0]], np.float32), 1 / LIMIT)).all()


def test_each_half_is_scaled_by_the_other(sample):
    logits, labels = sample[0][:2001], sample[1][:2001]
    rows = softmax(3 * logits, axis=1)
    scaled, (first, second) = cross_fit(rows, labels, seed=4)
    by_first = np.isclose(scaled, softmax(3 * logits / first, axis=1)).all(axis=1)
    by_second = np.isclose(scaled, softmax(3 * logits / second, axis=1)).all(axis=1)
    assert (by_first ^ by_second).all() and by_first.sum() == 1001 and by_second.sum() == 1000
    assert first == pytest.approx(fit_temperature(rows[by_second], labels[by_second]))
    assert second == pytest.approx(fit_temperature(rows[by_first], labels[by_first]))
    assert first != second


def test_risk_and_coverage_by_hand():
    # confidences 0.9, 0.8, 0.6 and 0.55, of which the third is wrong
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.45, 0.55]])
    points = risk_coverage(probabilities, np.array([0, 1, 1, 1]))
    of = {point["min_confidence"]: (point["coverage"], point["accuracy"]) for point in points}
    assert of[0] == of[0.5] == of[0.55] == (1, 0.75)
    assert (
        of[0.6] == (0.75, pytest.approx(2 / 3)) and of[0.65] == of[0.8] == (0.5, 1) and of[0.85] == of[0.9] == (0.25, 1)
    )
    assert max(of) == 0.9
