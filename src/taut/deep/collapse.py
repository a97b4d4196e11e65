"""How much an amortised q uses each latent dimension: divergence, activity, information."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from taut.data.feeds import Batch
from taut.deep.evaluation import mapped
from taut.deep.objective import Bound, elements

if TYPE_CHECKING:
    import pandas as pd

ACTIVE = 0.01  # variance of the encoder's mean over the data above which a dimension is active
USED = 0.05  # nats of divergence above which it carries something
MOST_ROWS = 2_000  # for the mutual information, whose cost is their square
AVERAGED = 64  # draws for the mean of a distribution without a formula for it
FEW = 0.1  # share of active dimensions below which a collapse is warned of


def usage(objective: Bound, params: Any, columns: Mapping[str, Any], seed: int) -> "pd.DataFrame":
    """A row for every latent dimension of the data's latents.

    Columns: ``kl``, the mean of KL(q(z|x) || p(z)) over the rows in nats, where it has a closed
    form; ``activity``, the variance of E_q[z] over the rows; ``active``, whether that is above
    0.01 (Burda, Grosse and Salakhutdinov 2016, section 5.2).
    """
    import pandas as pd

    found = mapped(objective, _usage, params, columns, seed)
    records = []
    for name, (kl, mean) in found.items():
        for i in range(mean.shape[1]):
            activity = float(mean[:, i].var())
            records.append((f"{name}[{i}]", float(kl[:, i].mean()), activity, activity > ACTIVE))
    table = pd.DataFrame(records, columns=["dimension", "kl", "activity", "active"])
    return table.set_index("dimension")


def _usage(objective: Bound, params: Any, batch: Batch, key: Any) -> dict[str, tuple[Any, Any]]:
    """Latent -> divergences and means of some rows, (n, dimensions)."""
    found = {}
    closed = objective.divergences(params, batch.columns, key)
    for name, fn in distributions(objective, params, batch.columns, key).items():
        if objective.model.latents[name].discrete:
            continue
        mean = _mean(elements(fn), key)
        kl = closed.get(name)
        kl = jnp.full(mean.shape, jnp.nan) if kl is None or kl.shape != mean.shape else kl
        found[name] = _flat(kl), _flat(mean)
    return found


def distributions(objective: Bound, params: Any, columns: Any, key: Any) -> dict[str, Any]:
    """Latent of rows -> q; where one is conditioned on another, at that one's mean or mode."""
    _, labels = objective.priors(params, columns)
    found: dict[str, Any] = {}

    def sample(name: str, fn: Any) -> Any:
        site = objective.model.latents[name]
        if site.local:
            found[name] = fn
        if not site.discrete:
            return _mean(fn, key)
        return jnp.argmax(fn.logits, -1) if hasattr(fn, "logits") else fn.sample(key)

    objective.guide.sites(params["guide"], columns, labels)(sample)
    return found


def _mean(fn: Any, key: Any) -> Any:
    """The mean; from draws where it has no formula."""
    try:
        return fn.mean
    except NotImplementedError:
        return jnp.mean(fn.sample(key, (AVERAGED,)), 0)


def _flat(x: Any) -> Any:
    return x.reshape((len(x), -1))


def mutual_information(
    objective: Bound, params: Any, columns: Mapping[str, Any], seed: int
) -> float:
    """I(x; z) under q, in nats: how much a row's latents say of which row it is.

    The mean over rows of log q(z|x) - log q(z), with q(z) the mixture of q(z|x') over the rows
    (Hoffman and Johnson 2016); at most the logarithm of their number. At most 2,000 rows are used.
    NaN where a latent is conditioned on another, or not Gaussian.
    """
    count = len(jax.tree.leaves(dict(columns))[0])
    index = np.random.default_rng(seed).permutation(count)[:MOST_ROWS]
    some = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)[index]), dict(columns))
    found = objective.compiled(_information)(params, some, jax.random.key(seed))
    return float("nan") if found is None else float(found)


def _information(objective: Bound, params: Any, columns: Any, key: Any) -> Any:
    """The mutual information among some rows; None where no latent is Gaussian."""
    count = len(jax.tree.leaves(columns)[0])
    total, known = jnp.zeros((count, count)), False
    for fn in distributions(objective, params, columns, key).values():
        base = elements(fn)
        if type(base).__name__ != "Normal":
            continue
        loc, scale = _flat(base.loc), _flat(base.scale)
        z = loc + scale * jax.random.normal(key, loc.shape)
        total, known = total + _pairwise(z, loc, scale), True
    if not known:
        return None
    aggregated = jax.scipy.special.logsumexp(total, axis=1) - jnp.log(count)
    return jnp.mean(jnp.diagonal(total) - aggregated)


def _pairwise(z: Any, loc: Any, scale: Any) -> Any:
    """Log q(z_i | x_j) up to constants, (i, j), by three matrix products."""
    precision = scale**-2
    square = z**2 @ precision.T - 2 * z @ (loc * precision).T + jnp.sum(loc**2 * precision, -1)
    return -0.5 * square - jnp.sum(jnp.log(scale), -1)


def warning(table: "pd.DataFrame") -> str:
    """A sentence if the posterior has collapsed onto the prior; "" otherwise."""
    if table.empty:
        return ""
    active, count = int(np.sum(table["active"])), len(table)
    if active > FEW * count and active:
        return ""
    return (
        f"posterior collapse: {active} of {count} latent dimensions are active, the others are left at the prior. Try "
        "solvers.Stochastic(kl_warmup=10) or free_bits=0.1, a weaker decoder, or fewer dimensions"
    )
