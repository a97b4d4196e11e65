"""Streams of batches: the same posterior as from data in memory, whatever the batches are."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jaxtyping import TypeCheckError

import taut
from taut._core.errors import ArgumentError, DataError, ModelError
from taut.data import Batches

RNG = np.random.default_rng(3)
N, GROUPS = 1300, 6
X, GROUP = RNG.standard_normal(N), RNG.integers(0, GROUPS, N)
Y = RNG.standard_normal(GROUPS)[GROUP] + 0.5 * X + RNG.standard_normal(N)
ROWS = {"x": X, "group": GROUP, "y": Y}


def hierarchical(x, group, y, groups):
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    b = numpyro.sample("b", dist.Normal(0.0, 5.0))
    sigma = numpyro.sample("sigma", dist.HalfNormal(2.0))
    with numpyro.plate("groups", groups):
        a = numpyro.sample("a", dist.Normal(mu, 1.0))
    with numpyro.plate("rows", len(x)):
        numpyro.sample("y", dist.Normal(a[group] + b * x, sigma), obs=y)


def regression(x, y):
    w = numpyro.sample("w", dist.Normal(0.0, 5.0).expand([2]).to_event(1))
    numpyro.sample("y", dist.Normal(w[0] + w[1] * x, 1.0), obs=y)


def in_batches(size, **changed):
    rows = {**ROWS, **changed}
    return lambda: ({n: c[i : i + size] for n, c in rows.items()} for i in range(0, N, size))


@pytest.mark.parametrize("size", [100, 333, N])
def test_any_batch_size_gives_the_posterior_of_all_data(size):
    """Exact model: ELBO and moments of q equal those of data in memory to 1e-9."""
    rows = lambda: ({"x": X[i : i + size], "y": Y[i : i + size]} for i in range(0, N, size))  # fmt: skip
    whole = taut.fit(regression, {"x": X, "y": Y}, progress=False)
    found = taut.fit(regression, Batches(rows), progress=False)
    assert found.elbo == pytest.approx(whole.elbo, rel=1e-9)
    assert found.q.covariance == pytest.approx(whole.q.covariance, rel=1e-8)
    assert found.trust.verdict == "good"


def test_a_hierarchy_over_batches():
    """Means to 0.02 sd: the chains that correct q are the same up to rounding."""
    whole = taut.fit(hierarchical, {**ROWS, "groups": GROUPS}, progress=False)
    found = taut.fit(
        hierarchical, Batches(in_batches(250), fixed={"groups": GROUPS}), progress=False
    )
    assert found.elbo == pytest.approx(whole.elbo, abs=1e-3)
    for name in ("mu", "b", "sigma"):
        assert found.mean[name] == pytest.approx(whole.mean[name], abs=0.05 * float(whole.sd[name]))


def test_nan_is_reported_with_its_row():
    y = Y.copy()
    y[777] = np.nan
    with pytest.raises(DataError, match=r"'y'.*777"):
        taut.fit(
            hierarchical, Batches(in_batches(100, y=y), fixed={"groups": GROUPS}), progress=False
        )


def test_what_does_not_fold_or_add_up_is_refused():
    def logistic(x, y):
        w = numpyro.sample("w", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Bernoulli(logits=w * x), obs=y)

    def centred(x, y):
        w = numpyro.sample("w", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(w * (x - jnp.mean(x)), 1.0), obs=y)

    def local(x, y):
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0))
            numpyro.sample("y", dist.Normal(z * x, 1.0), obs=y)

    for model, y in ((logistic, (Y > 0.0).astype(float)), (centred, Y), (local, Y)):
        rows = lambda y=y: ({"x": X[i : i + 100], "y": y[i : i + 100]} for i in range(0, N, 100))  # fmt: skip
        with pytest.raises(ModelError):
            taut.fit(model, Batches(rows), progress=False)


def test_sources_refuse_what_they_cannot_be():
    with pytest.raises((ArgumentError, TypeCheckError), match="batches"):
        Batches(3)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="does not exist"):
        taut.data.Parquet("/nowhere/at/all")
    with pytest.raises(DataError, match="no rows"):
        taut.fit(regression, Batches(lambda: iter(())), progress=False)
