"""Index arrays in the data that point past the end: never read silently."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from taut._core.errors import DataError
from taut.problem import describe

Y = np.array([0.5, -1.0, 2.0])


def model(index, y, how, size=3):
    with numpyro.plate("group", size):
        m = numpyro.sample("m", dist.Normal(0, 1))
    with numpyro.plate("other", 4):
        table = numpyro.sample("table", dist.Normal(jnp.zeros(3), 1).to_event(1))
    picked = {
        "plain": lambda: m[index],
        "shifted": lambda: m[index - 1],
        "take": lambda: jnp.take(m, index),
        "table": lambda: table[index, 1],
        "pair": lambda: table.T[index[:, None], jnp.arange(2)].sum(-1),
        "clipped": lambda: m[jnp.clip(index, 0, size - 1)],
        "at": lambda: m.at[index].get(),
        "unused": lambda: m.sum() + 0 * index,
    }[how]()
    numpyro.sample("y", dist.Normal(picked, 1), obs=y)


def described(index, how):
    return describe(model, {"index": np.asarray(index), "y": Y, "how": how})


@pytest.mark.parametrize("how", ["plain", "take", "pair", "at"])
def test_data_that_count_from_one_are_refused(how):
    with pytest.raises(
        DataError, match=r"data 'index' is used as an index and holds 3.*It seems to count from 1"
    ):
        described([1, 2, 3], how)
    described([0, 1, 2], how)
    described([0, -1, -3], how)  # Python's counting from the end


def test_the_index_is_what_the_model_makes_of_the_data():
    described([1, 2, 3], "shifted")
    with pytest.raises(DataError, match="holds 3, outside of 0 to 2"):
        described([1, 2, 4], "shifted")
    described([1, 2, 3], "table")
    with pytest.raises(DataError, match="holds 9, outside of 0 to 3"):
        described([0, 2, 9], "table")


@pytest.mark.parametrize("index", [[0, 1, 7], [0, 1, -5]])
def test_padding_may_be_clipped(index):
    with pytest.raises(DataError, match=r"holds (7|-5), .*clip it with jnp.clip"):
        described(index, "plain")
    described(index, "clipped")
    described(index, "unused")


def test_new_data_of_the_same_shape_are_checked_again():
    described([0, 1, 2], "plain")
    with pytest.raises(DataError, match="used as an index"):
        described([0, 1, 3], "plain")


def test_indices_of_a_static_array_are_checked_too():
    def sized(g, y):
        with numpyro.plate("group", int(g.max())):  # one too few
            m = numpyro.sample("m", dist.Normal(0, 1))
        numpyro.sample("y", dist.Normal(m[g], 1), obs=y)

    with pytest.raises(DataError, match="used as an index and holds 2, outside of 0 to 1"):
        describe(sized, {"g": np.array([0, 1, 2]), "y": Y})


def test_computed_and_float_data_do_not_disturb():
    def sorted_rank(x, y):
        m = numpyro.sample("m", dist.Normal(jnp.zeros(3), 1).to_event(1))
        numpyro.sample("y", dist.Normal(m[jnp.argsort(x)], 1), obs=y)

    assert describe(sorted_rank, {"x": np.array([3, 1, 2]), "y": Y}).dim == 3
