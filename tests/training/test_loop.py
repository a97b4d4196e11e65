import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from runs import LEAST_SQUARES, ROWS, X, Y, feed, run, squares, start

from taut._core.errors import ArgumentError, ModelError
from taut._core.progress import Watch
from taut._core.status import Status
from taut.training import Training, train


@pytest.mark.parametrize("optimiser", ["adam", "prodigy", "sgd"])
def test_a_run_ends_by_itself_at_the_least_squares(optimiser):
    found = run(Training(optimiser=optimiser))
    assert found.status is Status.SETTLED
    assert found.params["w"] == pytest.approx(LEAST_SQUARES, abs=0.03)


def test_the_average_of_a_schedule_free_run_comes_to_the_least_squares():
    """Its weights of early iterates fall like one over the steps."""
    found = run(Training(optimiser="schedule-free", epochs=1000))
    assert found.params["w"] == pytest.approx(LEAST_SQUARES, abs=0.1)


def test_epochs_are_counted():
    found = run(Training(epochs=7))
    assert found.status is Status.COMPLETED
    assert found.steps == 7 * 8  # 230 rows in batches of 32
    assert found.looks[-1].epoch == 7


def test_a_padded_last_batch_changes_nothing():
    """One batch of all rows, and the same rows padded, have the same objective."""
    whole, padded = feed(ROWS), feed(32)
    exact = float(np.mean((X @ LEAST_SQUARES - Y) ** 2))
    params = {"w": jnp.asarray(LEAST_SQUARES, jnp.float32)}
    for each in (whole, padded):
        items = each.take(each.steps_per_epoch)
        weights, total = [], []
        for i in range(each.steps_per_epoch):
            batch = each.batch(each.resident, jax.tree.map(lambda x, i=i: x[i], items))
            total.append(float(squares(params, batch, None, 0)[0]))
            weights.append(int(np.sum(np.asarray(batch.weight) > 0)))
        assert np.average(total, weights=weights) == pytest.approx(exact, rel=1e-5)


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not():
    def noisy(params, batch, key, step):
        loss, info = squares(params, batch, key, step)
        return loss + 0.1 * params["w"] @ jax.random.normal(key, (4,)), info

    settings = Training(epochs=3)
    with Watch() as watch:
        a, b, c = (
            train(noisy, start(), feed(seed=s), settings, s, watch).params["w"] for s in (0, 0, 1)
        )
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_an_optax_optimiser_and_one_for_each_part():
    def two(params, batch, key, step):
        return squares({"w": params["a"]["w"] + params["b"]["w"]}, batch, key, step)

    parts = {"a": start(), "b": start()}
    with Watch() as watch:
        settings = Training(epochs=60, optimiser={"a": optax.adam(0.02), "b": optax.set_to_zero()})
        found = train(two, parts, feed(), settings, 0, watch).params
    assert found["a"]["w"] == pytest.approx(LEAST_SQUARES, abs=0.1)
    assert np.array_equal(found["b"]["w"], np.zeros(4))


def test_parts_that_are_not_there_are_named():
    with pytest.raises(ArgumentError, match=r"'w'.*'v'"):
        run(Training(optimiser={"v": "adam"}))


def test_an_unknown_optimiser_is_named():
    with pytest.raises(ArgumentError, match="no 'adma', did you mean 'adam'"):
        run(Training(optimiser="adma"))


# --- what is not finite ---------------------------------------------------------------------------


def test_steps_that_are_not_finite_are_left_out_and_said():
    def sometimes(params, batch, key, step):
        loss, info = squares(params, batch, key, step)
        return jnp.where(step % 5 == 3, jnp.nan, loss), info

    found = run(Training(epochs=100, learning_rate=0.05), objective=sometimes)
    assert found.status is Status.COMPLETED
    assert found.skipped == 160
    assert found.params["w"] == pytest.approx(LEAST_SQUARES, abs=0.03)
    assert any("160 of 800 steps" in note and "step 3" in note for note in found.notes)


def test_a_run_that_breaks_down_keeps_the_last_good_parameters():
    def breaking(params, batch, key, step):
        loss, info = squares(params, batch, key, step)
        return jnp.where(step > 600, jnp.nan, loss), info

    found = run(Training(epochs=300, learning_rate=0.02), objective=breaking)
    assert found.status is Status.NONFINITE
    assert found.params["w"] == pytest.approx(LEAST_SQUARES, abs=0.2)


def test_an_objective_that_is_never_finite_is_an_error():
    def never(params, batch, key, step):
        return jnp.log(-1.0 - jnp.sum(params["w"] ** 2)), {}

    with pytest.raises(ModelError, match="not finite on any of the first batches"):
        run(objective=never)


# --- ends -----------------------------------------------------------------------------------------


def test_a_callback_ends_it_with_the_best_so_far():
    found = run(Training(epochs=10**6), callbacks=[lambda stage, n: n["step"] > 500])
    assert found.status is Status.INTERRUPTED
    assert np.isfinite(found.params["w"]).all()


def test_a_budget_ends_it():
    found = run(Training(epochs=10**6), budget=3.0)
    assert found.status is Status.BUDGET


def test_validation_keeps_the_best_and_ends_the_run():
    """The validation rows want other weights: the start is better than what training finds."""
    found = run(Training(patience=3, epochs=200, learning_rate=0.02), validation=_other_rows())
    assert found.status is Status.EARLY_STOP
    best = min(look.validation for look in found.looks)
    residual = X @ np.asarray(found.params["w"]) + Y
    assert np.mean(residual**2) == pytest.approx(best, rel=1e-4)


def _other_rows():
    from taut.data.feeds import InMemory

    return InMemory({"x": X, "y": -Y}, 32, shuffle=False)
