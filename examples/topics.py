"""A topic model with an encoder, on documents whose topics are known.

Srivastava and Sutton 2017, Autoencoding variational inference for topic models: topic proportions
are a softmax of Gaussians, documents are counts of words, and a network reads the proportions off
the counts. Found topics are matched with the true ones by the cosine of their angle.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy.optimize import linear_sum_assignment

import taut

TOPICS, WORDS, LENGTH = 5, 60, 80
NETWORK = eqx.nn.MLP(WORDS, 2 * TOPICS, 64, 1, key=jax.random.key(0))
ENCODER = eqx.nn.Sequential([eqx.nn.Lambda(jnp.log1p), NETWORK])
START = 0.1 * jax.random.normal(jax.random.key(1), (TOPICS, WORDS))


def documents(counts):
    """Proportions of topics for each document, and its words from the mixture of topics."""
    topics = jax.nn.softmax(numpyro.param("topics", START))
    with numpyro.plate("documents", len(counts)):
        u = numpyro.sample("u", dist.Normal(0, 1.5).expand([TOPICS]).to_event(1))
        words = dist.Multinomial(total_count=LENGTH, probs=jax.nn.softmax(u) @ topics)
        numpyro.sample("counts", words, obs=counts)


# --- data -----------------------------------------------------------------------------------------


def simulate(count, rng):
    """Counts of words in documents, (count, words), and the topics behind them."""
    topics = rng.dirichlet(np.full(WORDS, 0.1), TOPICS)
    shares = rng.dirichlet(np.full(TOPICS, 0.3), count)
    return rng.multinomial(LENGTH, shares @ topics), topics


def matched(found, truth):
    """Cosine similarity of each true topic with the found one that it is matched with."""
    unit = [t / np.linalg.norm(t, axis=1, keepdims=True) for t in (truth, found)]
    cosine = unit[0] @ unit[1].T
    return cosine[linear_sum_assignment(-cosine)]


def main():
    """Train on 2,000 documents."""
    counts, truth = simulate(2000, np.random.default_rng(0))
    posterior = taut.fit(
        documents,
        {"counts": counts},
        family=taut.families.Amortised({"u": ENCODER}),
        solver=taut.solvers.Stochastic(epochs=60, learning_rate=0.01),
    )
    similarity = matched(np.asarray(jax.nn.softmax(posterior.params["topics"])), truth)
    print(posterior)
    print("cosine similarity of the topics:", " ".join(f"{s:.3f}" for s in similarity))
    return {"lowest": float(similarity.min()), "mean": float(similarity.mean())}


if __name__ == "__main__":
    main()
