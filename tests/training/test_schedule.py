import numpy as np
import pytest

from taut.training import schedule


def test_a_planned_rate_rises_to_one_and_ends_at_zero():
    rates = [schedule.planned_rate(i, 1000) for i in range(1000)]
    assert max(rates) == 1.0
    assert rates[0] == pytest.approx(0.02)
    assert rates[-1] < 1e-4
    assert np.all(np.diff(rates[50:]) <= 0)


def test_an_open_rate_stays_until_the_cooldown():
    assert schedule.open_rate(10**6, None) == 1.0
    begin, end = schedule.cooldown(1000, 100)
    assert (begin, end) == (1000, 1300)
    assert schedule.open_rate(begin, (begin, end)) == 1.0
    assert schedule.open_rate(end, (begin, end)) == 0.0


@pytest.mark.stat
def test_noise_without_drift_is_settled():
    """Each look says otherwise with probability 0.16: of 400 runs 64 do, standard deviation 7.3."""
    rng = np.random.default_rng(1)
    found = sum(schedule.has_settled([9.0, *rng.normal(size=39) / 50]) for _ in range(400))
    assert 400 - found < 64 + 5 * 7.3


def test_a_drift_of_many_standard_errors_is_not():
    rng = np.random.default_rng(2)
    losses = np.linspace(10.0, 0.0, 60) + 0.1 * rng.normal(size=60)
    assert not schedule.has_settled(list(losses))


def test_few_looks_settle_nothing():
    assert not schedule.has_settled([1.0] * 11)
    assert schedule.has_settled([1.0] * 12)
