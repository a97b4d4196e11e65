r"""How the gradient with respect to one latent's distribution is estimated.

Each estimator says how a site is drawn and what its draw adds to the surrogate. With the cost
:math:`f` of a draw, that is :math:`f` itself, through whose value gradients may flow, and
:math:`\operatorname{stop}(f - b)\, s` with a *score* :math:`s` and a baseline :math:`b`.

| estimator | gradient | for |
|---|---|---|
| Pathwise | unbiased | what :func:`reparameterisation` calls pathwise |
| StickingTheLanding | unbiased | the same; no variance where q is the posterior |
| Score | unbiased | anything |
| LeaveOneOut | unbiased | anything, with two or more samples |
| Baseline | unbiased | anything |
| DisARM | unbiased | Bernoulli |
| Enumerate | exact | finite supports |
| StraightThrough, Gumbel | biased | Bernoulli, categorical; the value is 0/1 or one-hot, or near |
"""

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array
from numpyro.distributions import Distribution
from typing_extensions import override

from taut._core.errors import ArgumentError, listing, nearest
from taut.bounds import discrete
from taut.bounds.paths import reparameterisation

MAX_CONFIGURATIONS = 2**16


@dataclasses.dataclass(frozen=True)
class Site:
    """What is known of a latent of the guide before it is drawn.

    Attributes:
        name: its name.
        index: its place in the order of drawing.
        distribution: the class of its elements' distribution, for messages.
        shape: shape of a draw.
        event_shape: the part of it that one log probability belongs to.
        local: whether its first axis is the data's.
        discrete: whether its values are counts or labels.
        pathwise: whether it has draws through which gradients flow.
        relaxable: whether it is Bernoulli or categorical.
        binary: whether it is Bernoulli.
        num_values: size of the support of one element; 0 where it is not finite.
    """

    name: str
    index: int
    distribution: str
    shape: tuple[int, ...]
    event_shape: tuple[int, ...]
    local: bool
    discrete: bool
    pathwise: bool
    relaxable: bool
    binary: bool
    num_values: int

    @property
    def num_cells(self) -> int:
        """Elements that are enumerated jointly."""
        return discrete.num_cells(self.shape, self.local)

    @property
    def num_configurations(self) -> int:
        """Settings of the elements that are enumerated jointly; 0 where they are infinite."""
        return self.num_values**self.num_cells if self.num_values else 0

    def log_prob(self, distribution: Distribution, value: Any) -> Array:
        """Log probability of a draw, () or (n,)."""
        return self.reduce(discrete.log_prob(distribution, value))

    def reduce(self, terms: Array) -> Array:
        """Sum over all axes, but not over the data's where the site is local."""
        return jnp.sum(terms, axis=tuple(range(1 if self.local else 0, jnp.ndim(terms))))


class Run(NamedTuple):
    """Which of several coupled runs of the guide this is.

    Attributes:
        flip: whether antithetic uniforms are used.
        configuration: enumerated site -> index of its setting.
    """

    flip: Any
    configuration: dict[str, Any]


class Drawn(NamedTuple):
    """A drawn site.

    Attributes:
        value: what the log joint sees.
        log_q: log probability, summed to () or (n,).
        score: what is multiplied by the stopped cost, () or (n,); None where gradients take
            another way.
    """

    value: Any
    log_q: Array
    score: Array | None = None


class AbstractEstimator(abc.ABC):
    """Frozen settings of a gradient estimator for one site."""

    name: ClassVar[str]
    unbiased: ClassVar[bool] = True
    # The parameters' own gradient of log q has mean zero and is left out of the cost.
    frozen: ClassVar[bool] = False
    relaxes: ClassVar[bool] = False

    @abc.abstractmethod
    def check(self, site: Site) -> None:
        """Raise an ArgumentError if the estimator cannot be used for a site."""

    @abc.abstractmethod
    def draw(self, site: Site, distribution: Distribution, key: Any, run: Run) -> Drawn:
        """Draw a site in one run."""


def _refuse(estimator: AbstractEstimator, site: Site, needs: str) -> ArgumentError:
    remedy = "'enumerate', 'leave-one-out' or 'score'" if site.discrete else "'leave-one-out'"
    return ArgumentError(
        f"estimator: '{estimator.name}' is for {needs}, and site '{site.name}' is "
        f"{site.distribution}; try {remedy if not site.pathwise else repr('pathwise')}"
    )


@dataclasses.dataclass(frozen=True)
class Pathwise(AbstractEstimator):
    """Gradients flow through the draw (Kingma and Welling 2014)."""

    name: ClassVar[str] = "pathwise"

    @override
    def check(self, site: Site) -> None:
        if not site.pathwise:
            raise _refuse(self, site, "distributions with reparameterised draws")

    @override
    def draw(self, site: Site, distribution: Distribution, key: Any, run: Run) -> Drawn:
        # A flow's density at its own draw is cheap with what the draw computed on its way.
        value, intermediates = distribution.sample_with_intermediates(key)
        found = (
            distribution.log_prob(value, intermediates)
            if intermediates
            else distribution.log_prob(value)
        )
        return Drawn(value, site.reduce(jnp.asarray(found)))


@dataclasses.dataclass(frozen=True)
class StickingTheLanding(AbstractEstimator):
    """Pathwise, without the score of q, whose mean is zero (Roeder, Wu and Duvenaud 2017)."""

    name: ClassVar[str] = "sticking-the-landing"
    frozen: ClassVar[bool] = True

    @override
    def check(self, site: Site) -> None:
        if not site.pathwise:
            raise _refuse(self, site, "distributions with reparameterised draws")

    @override
    def draw(self, site: Site, distribution: Distribution, key: Any, run: Run) -> Drawn:
        return Pathwise().draw(site, distribution, key, run)


class AbstractScore(AbstractEstimator):
    """The cost of a draw times the gradient of its log probability (Williams 1992)."""

    frozen: ClassVar[bool] = True

    @override
    def check(self, site: Site) -> None:
        return

    @override
    def draw(self, site: Site, distribution: Distribution, key: Any, run: Run) -> Drawn:
        value = jax.lax.stop_gradient(jnp.asarray(distribution.sample(key)))
        log_q = site.log_prob(distribution, value)
        return Drawn(value, log_q, log_q)


@dataclasses.dataclass(frozen=True)
class Score(AbstractScore):
    """REINFORCE, without a baseline: unbiased, and of a large variance."""

    name: ClassVar[str] = "score"


@dataclasses.dataclass(frozen=True)
class LeaveOneOut(AbstractScore):
    """The mean cost of the other samples is the baseline (Kool, van Hoof and Welling 2019).

    In importance-weighted bounds the bound without the sample is (VIMCO; Mnih and Rezende 2016).
    """

    name: ClassVar[str] = "leave-one-out"


@dataclasses.dataclass(frozen=True)
class Baseline(AbstractScore):
    """A baseline of one's own, learned beside (Mnih and Gregor 2014, NVIL).

    Attributes:
        function: (values drawn before this site) -> baseline in nats, () or (n,). Minus half of
            its squared error is part of the surrogate, as a gradient and not in the value, so that
            parameters that it closes over learn the cost; stop those that must not.
    """

    function: Callable[[dict[str, Any]], Any]
    name: ClassVar[str] = "baseline"


@dataclasses.dataclass(frozen=True)
class DisARM(AbstractEstimator):
    """Antithetic pairs of Bernoulli vectors (Dong, Mnih and Tucker 2020, equation 5)."""

    name: ClassVar[str] = "disarm"
    frozen: ClassVar[bool] = True

    @override
    def check(self, site: Site) -> None:
        if not site.binary:
            raise _refuse(self, site, "Bernoulli distributions")

    @override
    def draw(self, site: Site, distribution: Distribution, key: Any, run: Run) -> Drawn:
        logits = discrete.bernoulli_logits(distribution)
        stopped = jax.lax.stop_gradient(logits)
        uniform = jax.random.uniform(key, logits.shape, logits.dtype)
        first, second = (u < jax.nn.sigmoid(stopped) for u in (uniform, 1.0 - uniform))
        value = jnp.where(run.flip, second, first).astype(int)
        # With the pair's mean cost this is equation 5: the other's sign is minus one's own.
        weight = jnp.where(first != second, jax.nn.sigmoid(jnp.abs(stopped)), 0.0)
        score = site.reduce((2 * value - 1) * weight * logits)
        return Drawn(value, site.log_prob(distribution, value), score)


@dataclasses.dataclass(frozen=True)
class Enumerate(AbstractEstimator):
    """The exact sum over the support."""

    name: ClassVar[str] = "enumerate"

    @override
    def check(self, site: Site) -> None:
        if not site.num_values:
            raise _refuse(self, site, "distributions with a finite support of each element")
        if site.num_configurations > MAX_CONFIGURATIONS:
            raise ArgumentError(
                f"estimator: site '{site.name}' has {site.num_values}^{site.num_cells} settings, "
                f"and 'enumerate' sums over at most {MAX_CONFIGURATIONS}; try 'leave-one-out'"
            )

    @override
    def draw(self, site: Site, distribution: Distribution, key: Any, run: Run) -> Drawn:
        settings = jnp.asarray(discrete.grid(site.num_values, site.num_cells))
        indices = settings[run.configuration[site.name]]
        cells = indices.reshape(site.shape[1:] if site.local else site.shape)
        value = discrete.configurations(distribution, jnp.broadcast_to(cells, site.shape))
        return Drawn(value, site.log_prob(distribution, value))


class AbstractRelaxation(AbstractEstimator):
    """Biased: the log joint sees 0/1 or one-hot values, or points between them.

    The log joint has to be defined there: a Bernoulli site is a float array, a categorical site
    has one axis more. log q is continued linearly between the corners.
    """

    unbiased: ClassVar[bool] = False
    relaxes: ClassVar[bool] = True
    temperature: float | int | None

    def __post_init__(self) -> None:
        """Check the temperature."""
        if self.temperature is not None and not self.temperature > 0:
            raise ArgumentError(f"temperature must be positive, got {self.temperature}")

    @abc.abstractmethod
    def relax(self, distribution: Distribution, key: Any) -> Array:
        """Draw a value with a path."""

    @override
    def check(self, site: Site) -> None:
        if not site.relaxable:
            raise _refuse(self, site, "Bernoulli and categorical distributions")

    @override
    def draw(self, site: Site, distribution: Distribution, key: Any, run: Run) -> Drawn:
        value = self.relax(distribution, key)
        return Drawn(value, site.reduce(discrete.linear_log_prob(distribution, value)))


@dataclasses.dataclass(frozen=True)
class Gumbel(AbstractRelaxation):
    """A relaxed draw; biased, ever less and ever noisier as the temperature falls.

    The value is the relaxed objective's, too (Jang, Gu and Poole 2017; Maddison, Mnih and Teh
    2017).

    Attributes:
        temperature: positive.
    """

    temperature: float | int = 0.5
    name: ClassVar[str] = "gumbel"

    @override
    def relax(self, distribution: Distribution, key: Any) -> Array:
        return discrete.relaxed_draw(distribution, key, self.temperature)


@dataclasses.dataclass(frozen=True)
class StraightThrough(AbstractRelaxation):
    """A true discrete draw with the gradient of something smooth; biased, the value is not.

    Attributes:
        temperature: None: the gradient of the mean (Bengio, Leonard and Courville 2013); a
            number: of the relaxed draw at that temperature (Jang, Gu and Poole 2017).
    """

    temperature: float | int | None = None
    name: ClassVar[str] = "straight-through"

    @override
    def relax(self, distribution: Distribution, key: Any) -> Array:
        relaxed = discrete.relaxed_draw(distribution, key, self.temperature or 1.0)
        smooth = relaxed if self.temperature else discrete.probabilities(distribution)
        corner = jax.lax.stop_gradient(discrete.hard(distribution, relaxed))
        return corner + (smooth - jax.lax.stop_gradient(smooth))


Choice = str | AbstractEstimator
Estimators = Choice | Mapping[str, Choice] | tuple[tuple[str, Choice], ...]
"""A name or settings for all sites, or a mapping site -> name or settings for some of them."""


def hashable(estimator: Estimators | None) -> Estimators | None:
    """The same with a mapping as pairs, so that settings can be static arguments."""
    return tuple(estimator.items()) if isinstance(estimator, Mapping) else estimator


_NAMED: dict[str, Callable[[], AbstractEstimator]] = {
    "pathwise": Pathwise,
    "sticking-the-landing": StickingTheLanding,
    "score": Score,
    "leave-one-out": LeaveOneOut,
    "disarm": DisARM,
    "enumerate": Enumerate,
    "gumbel": Gumbel,
    "straight-through": StraightThrough,
}


def named(estimator: str | AbstractEstimator) -> AbstractEstimator:
    """The estimator of a name.

    Raises:
        ArgumentError: if there is none of that name.
    """
    if isinstance(estimator, AbstractEstimator):
        return estimator
    if estimator == "baseline":
        raise ArgumentError("estimator: give a baseline's function, bounds.Baseline(function)")
    if estimator not in _NAMED:
        raise ArgumentError(
            f"estimator: no '{estimator}'{nearest(estimator, _NAMED)} There are {listing(_NAMED)}"
        )
    return _NAMED[estimator]()


def has_path(distribution: Distribution) -> bool:
    """Whether gradients flow through its draws without bias."""
    return reparameterisation(distribution).pathwise
