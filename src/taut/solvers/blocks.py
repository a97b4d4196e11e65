r"""Block coordinate ascent on the compiled ELBO: the one update rule.

With F the expected log joint as a function of the mean parameters :math:`\mu` of one factor,
others fixed, the ELBO's optimum over that factor has the natural parameter
:math:`\eta = \partial F / \partial \mu`. For conjugate factors this is the textbooks' coordinate
ascent and variational message passing; for a Gaussian block :math:`N(m, V)`, where
:math:`\partial F / \partial m` is the expected gradient and :math:`2\, \partial F / \partial V` the
expected Hessian (Bonnet, Price), it is variational Newton,

.. math:: V^{-1} \leftarrow -2 \frac{\partial F}{\partial V}, \qquad
          m \leftarrow m + V \frac{\partial F}{\partial m},

exact in one step where F is quadratic, and damped by halving where it is not; its delta-method
limit is Laplace's approximation (Khan and Rue 2021, the Bayesian learning rule).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from taut.expectation import scaled
from taut.expectation.factor import AbstractChain, AbstractDiscrete, AbstractFactor
from taut.expectation.gaussian import Gaussian, Scaled
from taut.expectation.transform import Compiled

SMALLEST_STEP = 1.0 / 1024.0
Factors = dict[str, Any]
Sites = Mapping[str, Compiled]


@dataclasses.dataclass(frozen=True)
class Block:
    """One factor that is updated at once.

    Attributes:
        name: its key in q.
        latents: the latents that it holds.
        sites: the sites that depend on them.
        is_conjugate: whether the full step is the optimum, so that nothing needs to be tried.
    """

    name: str
    latents: tuple[str, ...]
    sites: tuple[str, ...]
    is_conjugate: bool


def expected(q: Factors, sites: Sites, only: tuple[str, ...] | None = None) -> Any:
    """Expected log joint, of all sites or some."""
    total: Any = jnp.zeros(())
    for name, compiled in sites.items():
        if only is None or name in only:
            total = total + compiled(q)
    return total


def touching(sites: Sites, latents: tuple[str, ...]) -> dict[str, Compiled]:
    """The terms of each site that depend on some latents."""
    found = {}
    for name, compiled in sites.items():
        if compiled.function is not None:
            found[name] = compiled
            continue
        terms = tuple(t for t in compiled.terms if t.latents & set(latents))
        if terms:
            found[name] = dataclasses.replace(compiled, terms=terms)
    return found


def elbo(q: Factors, sites: Sites) -> Any:
    """Evidence lower bound, nats."""
    return expected(q, sites) + sum(f.entropy for f in q.values())


def updated(q: Factors, block: Block, sites: Sites, step: Any = 1.0) -> tuple[Any, Any]:
    """The factor after a step of size ``step`` in natural parameters, and whether it is proper."""
    mine = touching({s: sites[s] for s in block.sites}, block.latents)
    factor = q[block.name]
    cotangent = jax.grad(lambda f: expected({**q, block.name: f}, mine))(factor)
    return _moved(factor, cotangent, step)


def _moved(factor: Any, cotangent: Any, step: Any) -> tuple[Any, Any]:
    if isinstance(factor, Gaussian):
        return _gaussian_step(factor, cotangent, step)
    if isinstance(factor, Scaled):
        natural = scaled.gradient(factor, cotangent)
        if not _is_full(step):
            natural = _between(scaled.natural_of(factor), natural, step)
        return scaled.with_natural(factor, natural)
    natural = factor.gradient(cotangent)
    if not _is_full(step):
        natural = _between(factor.natural, natural, step)
    new = factor.with_natural(natural)
    return new, new.is_proper()


def _between(old: Any, new: Any, step: Any) -> Any:
    return jax.tree.map(lambda a, b: (1.0 - step) * a + step * b, old, new)


def _is_full(step: Any) -> bool:
    """Whether a step is known to be one, so that the old factor need not be read again."""
    return isinstance(step, float) and step == 1.0


def _gaussian_step(factor: Gaussian, cotangent: Gaussian, step: Any) -> tuple[Gaussian, Any]:
    """Variational Newton; blocks whose precision is not positive definite make it improper."""
    eye = jnp.eye(factor.covariance.shape[-1])
    precision = -2.0 * cotangent.covariance
    if not _is_full(step):
        old = jnp.linalg.inv(factor.covariance)
        precision = (1.0 - step) * old + step * precision
    root = jnp.linalg.cholesky(0.5 * (precision + precision.mT))
    inverse = jax.scipy.linalg.solve_triangular(root, jnp.broadcast_to(eye, root.shape), lower=True)
    covariance = inverse.mT @ inverse
    mean = factor.mean + step * jnp.einsum("bij,bj->bi", covariance, cotangent.mean)
    new = dataclasses.replace(factor, mean=mean, covariance=covariance)
    return new, jnp.all(jnp.isfinite(covariance)) & jnp.all(jnp.isfinite(mean))


def damped(q: Factors, block: Block, sites: Sites, first: Any) -> tuple[Any, Any, Any]:
    """The factor after the largest of the steps first, first/2, ... that raises the ELBO.

    Returns:
        The new factor (the old one if no step does), the step taken, and the gain in nats.
    """
    mine = touching({s: sites[s] for s in block.sites}, block.latents)
    old = q[block.name]

    def objective(factor: Any) -> Any:
        return expected({**q, block.name: factor}, mine) + factor.entropy

    start, cotangent = jax.value_and_grad(lambda f: expected({**q, block.name: f}, mine))(old)
    before = start + old.entropy
    slack = 1e-12 * (1.0 + jnp.abs(before))

    def attempt(step: Any) -> tuple[Any, Any]:
        new, proper = _moved(old, cotangent, step)
        after = objective(new)
        good = proper & jnp.isfinite(after) & (after >= before - slack)
        return jax.tree.map(lambda a, b: jnp.where(good, a, b), new, old), jnp.where(
            good, after - before, -jnp.inf
        )

    def again(state: Any) -> Any:
        step, _, _ = state
        return (0.5 * step, *attempt(0.5 * step))

    def failed(state: Any) -> Any:
        step, _, gain = state
        return ~jnp.isfinite(gain) & (step > SMALLEST_STEP)

    step, new, gain = jax.lax.while_loop(failed, again, (first, *attempt(first)))
    return new, step, jnp.where(jnp.isfinite(gain), gain, 0.0)


def sweep(
    q: Factors, sites: Sites, steps: Mapping[str, Any], blocks: tuple[Block, ...]
) -> tuple[Factors, dict[str, Any], Any]:
    """Update all blocks in turn.

    Returns:
        The new factors, the next first step of each block, and the ELBO.
    """
    q, steps = dict(q), dict(steps)
    for block in blocks:
        if block.is_conjugate:
            q[block.name], _ = updated(q, block, sites)
        else:
            q[block.name], taken, _ = damped(q, block, sites, steps[block.name])
            steps[block.name] = jnp.minimum(1.0, 2.0 * taken)
    return q, steps, _elbo_after(q, blocks[-1], sites)


def _elbo_after(q: Factors, block: Block, sites: Sites) -> Any:
    r"""The ELBO just after a block was updated.

    Where the factor is discrete and its optimum :math:`\eta` was reached, the terms that touch it
    and its entropy add up to :math:`\langle \eta, \mu \rangle + H = A(\eta)`, its log normaliser,
    which is known already: one pass over all its elements less.
    """
    factor, mine = q[block.name], touching({s: sites[s] for s in block.sites}, block.latents)
    if not (block.is_conjugate and isinstance(factor, AbstractDiscrete)):
        return elbo(q, sites)
    most = 2 if isinstance(factor, AbstractChain) else 1
    found = [
        [e for e, _ in t.onehots if e.latent in block.latents]
        for c in mine.values()
        for t in c.terms
    ]
    if any(not 1 <= len(onehots) <= most for onehots in found):
        return elbo(q, sites)
    others = {n: f for n, f in q.items() if n != block.name}
    total = jnp.sum(factor.log_normalizer) + sum(f.entropy for f in others.values())
    for compiled in sites.values():
        terms = tuple(t for t in compiled.terms if not t.latents & set(block.latents))
        if compiled.function is not None or terms:
            total = total + dataclasses.replace(compiled, terms=terms)(q)
    return total


def is_factor(x: Any) -> bool:
    """True for factors, the leaves of q."""
    return isinstance(x, Gaussian | Scaled | AbstractFactor)
