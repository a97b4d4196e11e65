"""Which distributions have draws through which gradients flow, and how.

A draw is reparameterised when it is a differentiable function of the parameters and of noise that
does not depend on them; the gradient of an expectation is then the expectation of the gradient.

Source: Kingma and Welling (2014), Auto-encoding variational Bayes, section 2.4; Figurnov, Mohamed
and Mnih (2018), Implicit reparameterization gradients; Maddison, Mnih and Teh (2017), The Concrete
distribution.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array
from numpyro.distributions import Distribution

from taut._core.errors import ArgumentError
from taut.bounds.discrete import (
    RELAXABLE,
    element_of,
    is_discrete,
    relaxed_draw,
)
from taut.bounds.relaxed import RelaxedOneHotCategorical


@dataclasses.dataclass(frozen=True)
class Rule:
    """One row of the table.

    Attributes:
        name: the field's name of the method.
        draw: a draw as a function of noise, in words.
        pathwise: whether gradients through a draw are unbiased.
        distributions: NumPyro's classes that it is for.
    """

    name: str
    draw: str
    pathwise: bool
    distributions: tuple[type, ...] = ()


LOCATION_SCALE = Rule(
    "location-scale",
    "location + scale * standard noise",
    True,
    (
        dist.Normal,
        dist.Laplace,
        dist.Logistic,
        dist.Cauchy,
        dist.Gumbel,
        dist.AsymmetricLaplace,
        dist.SoftLaplace,
        dist.Uniform,
        dist.HalfNormal,
        dist.HalfCauchy,
        dist.Exponential,
        dist.ZeroSumNormal,
        dist.GaussianRandomWalk,
    ),
)
MATRIX_ROOT = Rule(
    "matrix root",
    "location + R * standard normals, R R' the covariance",
    True,
    (dist.MultivariateNormal, dist.LowRankMultivariateNormal, dist.MatrixNormal),
)
INVERSE_CDF = Rule(
    "inverse CDF",
    "inverse CDF of a uniform number",
    True,
    (
        dist.Weibull,
        dist.Kumaraswamy,
        dist.Gompertz,
        dist.Pareto,
        dist.LogUniform,
        dist.LeftTruncatedDistribution,
        dist.RightTruncatedDistribution,
        dist.TwoSidedTruncatedDistribution,
    ),
)
IMPLICIT = Rule(
    "implicit",
    "own sampler, differentiated through its CDF",
    True,
    (
        dist.Gamma,
        dist.Chi2,
        dist.InverseGamma,
        dist.Beta,
        dist.BetaProportion,
        dist.Dirichlet,
        dist.StudentT,
        dist.MultivariateStudentT,
    ),
)
TRANSFORMED = Rule(
    "transformed",
    "a function of a draw that has a path",
    True,
    (dist.LogNormal, dist.RelaxedBernoulliLogits, dist.TransformedDistribution),
)
RELAXED = Rule("Concrete", "softmax of logits + Gumbel noise", True, (RelaxedOneHotCategorical,))
POINT = Rule("point", "the value itself", True, (dist.Delta,))
OWN = Rule("own sampler", "differentiable, says its has_rsample", True)
GUMBEL = Rule(
    "Gumbel relaxation",
    "softmax or sigmoid of logits + noise: biased, it relaxes the discrete draw",
    False,
    RELAXABLE,
)
NONE = Rule("none", "no path: enumerate, or the score function", False)

_TABLE = (LOCATION_SCALE, MATRIX_ROOT, INVERSE_CDF, IMPLICIT, TRANSFORMED, RELAXED, POINT, GUMBEL)
_BY_CLASS = {cls: rule for rule in _TABLE for cls in rule.distributions}


@dataclasses.dataclass(frozen=True)
class Reparameterisation:
    """How a distribution is drawn so that gradients flow.

    Attributes:
        distribution: the distribution.
        rule: the row of the table.
        temperature: of the relaxation, where the rule is one.
    """

    distribution: Distribution
    rule: Rule
    temperature: float | int = 0.5

    @property
    def name(self) -> str:
        """The method's name."""
        return self.rule.name

    @property
    def pathwise(self) -> bool:
        """Whether gradients through a draw are unbiased."""
        return self.rule.pathwise

    def __str__(self) -> str:
        """Which row of the table it is, and the table."""
        kind = type(element_of(self.distribution)).__name__
        lines = reparameterisation_table().splitlines()
        marked = [("> " if x.split("  ")[0] == self.name else "  ") + x for x in lines]
        how = "gradients flow through draws" if self.pathwise else "no unbiased gradient by draws"
        return "\n".join([f"{kind}: {self.name}, {self.rule.draw}; {how}", *marked])

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draw.

        Args:
            key: of JAX.
            sample_shape: shape of independent draws.

        Returns:
            Draws, (*sample_shape, *batch_shape, *event_shape), differentiable in the parameters
            where ``pathwise`` is true. A Gumbel relaxation gives relaxed draws: in (0, 1) for a
            Bernoulli, in the simplex with one more axis for a categorical. Otherwise discrete or
            plain draws, without gradients.
        """
        if self.rule is GUMBEL:
            return relaxed_draw(self.distribution, key, self.temperature, sample_shape)
        draws = jnp.asarray(self.distribution.sample(key, sample_shape))
        return draws if self.rule.pathwise else jax.lax.stop_gradient(draws)


def reparameterisation(
    distribution: Distribution, temperature: float | int = 0.5
) -> Reparameterisation:
    """Look up how a distribution is drawn so that gradients flow.

    Args:
        distribution: of NumPyro, or a subclass of its Distribution. One that is not in the table is
            taken at its word (``has_rsample``).
        temperature: positive, of a Gumbel relaxation.

    Returns:
        The method; its ``sample(key)`` draws.

    Raises:
        ArgumentError: if the temperature is not positive.
    """
    if not temperature > 0:
        raise ArgumentError(f"temperature must be positive, got {temperature}; 0.5 is usual")
    return Reparameterisation(distribution, _rule(distribution), temperature)


def _rule(distribution: Distribution) -> Rule:
    element = element_of(distribution)
    for cls in type(element).__mro__:
        if (rule := _BY_CLASS.get(cls)) is not None:
            break
    else:
        claims = element.has_rsample and not is_discrete(element)
        rule = OWN if claims else NONE
    if isinstance(element, dist.TransformedDistribution) and rule.pathwise:
        base = _rule(element.base_dist)
        return rule if base.pathwise and not is_discrete(element) else NONE
    return rule


def reparameterisation_table() -> str:
    """List the methods and the distributions that each is for, as text to print."""
    rows = [
        (rule.name, rule.draw, ", ".join(cls.__name__ for cls in rule.distributions) or "any other")
        for rule in (*_TABLE, OWN, NONE)
    ]
    width = max(len(name) for name, _, _ in rows)
    return "\n".join(
        f"{name:<{width}}  {draw}\n{'':<{width}}    {classes}" for name, draw, classes in rows
    )
