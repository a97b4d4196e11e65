"""A guide written as a NumPyro function: probabilistic PCA, against its maximum likelihood.

Any NumPyro guide with the model's arguments can stand in for an encoder. Here q(z|x) is a Gaussian
with a linear mean and one full covariance, the form of the exact posterior, so that the bound can
reach the log likelihood. Its maximum is known from the eigenvalues of the data's covariance
(Tipping and Bishop 1999, Probabilistic principal component analysis, equation 6 ff.).
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import taut

FEATURES, LATENT = 6, 2


def ppca(x):
    """Centred data: x = W z + noise of one variance."""
    w = numpyro.param("w", 0.1 * jnp.eye(FEATURES, LATENT))
    s = numpyro.param("s", 1.0, constraint=dist.constraints.positive)
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Normal(0, 1).expand([LATENT]).to_event(1))
        numpyro.sample("x", dist.Normal(z @ w.T, s).to_event(1), obs=x)


def guide(x):
    """q(z|x) with a linear mean and a full covariance that all rows share."""
    v = numpyro.param("v", jnp.zeros((FEATURES, LATENT)))
    root = numpyro.param("root", jnp.eye(LATENT), constraint=dist.constraints.lower_cholesky)
    with numpyro.plate("rows", len(x)):
        numpyro.sample("z", dist.MultivariateNormal(x @ v, scale_tril=root))


def most_likely(x):
    """The largest mean log likelihood that any W and noise give."""
    values = np.linalg.eigvalsh(x.T @ x / len(x))[::-1]
    noise = values[LATENT:].mean()
    log_det = np.log(values[:LATENT]).sum() + (FEATURES - LATENT) * np.log(noise)
    return -0.5 * (FEATURES * np.log(2 * np.pi) + log_det + FEATURES)


def main():
    """Train model and guide together on 1,000 rows."""
    rng = np.random.default_rng(0)
    loadings = rng.normal(size=(FEATURES, LATENT))
    x = rng.normal(size=(1000, LATENT)) @ loadings.T + 0.5 * rng.normal(size=(1000, FEATURES))
    x = x - x.mean(0)
    solver = taut.solvers.Stochastic(epochs=150, learning_rate=0.01)
    posterior = taut.fit(ppca, {"x": x}, family=guide, solver=solver)
    truth, found = most_likely(x), posterior.elbo / len(x)
    print(f"ELBO of a row {found:.4f} nats; largest log likelihood {truth:.4f}")
    print(f"noise {float(posterior.params['s']):.3f}, made with 0.5")
    return {"gap": truth - found, "noise": float(posterior.params["s"])}


if __name__ == "__main__":
    main()
