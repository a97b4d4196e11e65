"""The posterior of a trained model: encoders, a generative model, and what both are worth."""

import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import Distribution
from typing_extensions import override

from taut._core.errors import ArgumentError, listing
from taut.bounds import ImportanceWeighted, Renyi
from taut.deep import collapse
from taut.deep.evaluation import RowEvidence, columns_of, row_evidence, total_bound
from taut.deep.guides import Encoding
from taut.deep.objective import Bound
from taut.deep.refinement import Refined, refine
from taut.deep.trained import PREDICTED, AbstractTrained, check_count
from taut.deep.training import Fitted
from taut.problem.types import scalar_labels

if TYPE_CHECKING:
    import pandas as pd

SUMMARISED = 4_000  # draws
SHOWN = 10  # latents in a printed posterior


class TrainedPosterior(AbstractTrained):
    """q by networks for latents of rows, by Gaussians for what all rows share.

    Attributes:
        seed: of the fit.
    """

    _fitted: Fitted
    seed: int

    def __init__(self, fitted: Fitted, seed: int) -> None:
        self._fitted, self.seed = fitted, seed

    @property
    def _bound(self) -> Bound:
        objective = self._fitted.objective
        assert isinstance(objective, Bound)
        return objective

    @property
    def elbo(self) -> float:
        """The ELBO of the data, nats: of all rows, or scaled up from 20,000 of them."""
        return self._elbo[0]

    @property
    def elbo_error(self) -> float:
        """The Monte Carlo error of the ELBO, nats."""
        return self._elbo[1]

    @functools.cached_property
    def _elbo(self) -> tuple[float, float]:
        fitted = self._fitted
        return total_bound(
            self._bound, self._parameters, fitted.monitored, fitted.num_rows, self.seed
        )

    # --- the recognition side -----------------------------------------------------------------

    def encode(self, data: Any) -> dict[str, Distribution]:
        """q(z | x) for some rows, by latent.

        Args:
            data: the model's arguments with rows.

        Returns:
            NumPyro distributions with the rows as their first batch axis. One that is conditioned
            on another latent is given at that latent's mean, or most probable label.
        """
        columns = jax.tree.map(jnp.asarray, columns_of(self._model, data))
        key = jax.random.key(self.seed)
        found = self._bound.compiled(collapse.distributions)(self._parameters, columns, key)
        return {n: found[n] for n, s in self._model.latents.items() if s.local}

    @functools.cached_property
    def q(self) -> dict[str, Distribution]:
        """Q of the latents that all rows share, in the model's own space."""
        if all(site.local for site in self._model.latents.values()):
            return {}
        return self._bound.compiled(_shared)(self._parameters, self._model.examples)

    def draws(self, num_draws: int = 1000, seed: int = 0) -> dict[str, np.ndarray]:
        """Draws of the latents that all rows share, (num_draws, ...)."""
        keys = jax.random.split(jax.random.key(seed), max(len(self.q), 1))
        count = check_count("num_draws", num_draws)
        pairs = zip(keys, self.q.items(), strict=False)
        return {n: np.asarray(fn.sample(key, (count,))) for key, (n, fn) in pairs}

    @functools.cached_property
    def mean(self) -> dict[str, np.ndarray]:
        """Posterior means of the latents that all rows share."""
        return {n: m for n, (m, _) in self._moments.items()}

    @functools.cached_property
    def sd(self) -> dict[str, np.ndarray]:
        """Their posterior standard deviations."""
        return {n: s for n, (_, s) in self._moments.items()}

    @functools.cached_property
    def _moments(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        return {n: _mean_and_sd(fn) for n, fn in self.q.items()}

    def summary(self) -> "pd.DataFrame":
        """Mean, sd and the central 94% of every number that all rows share."""
        import pandas as pd

        records = {}
        for name, values in self.draws(SUMMARISED, self.seed).items():
            flat = values.reshape((len(values), -1))
            labels = scalar_labels(name, values.shape[1:])
            low, high = np.quantile(flat, [0.03, 0.97], axis=0)
            pairs = zip(labels, flat.mean(0), flat.std(0), low, high, strict=True)
            records |= {label: numbers for label, *numbers in pairs}
        columns = ["mean", "sd", "3%", "97%"]
        return pd.DataFrame.from_dict(records, orient="index", columns=columns)

    # --- the generative side ------------------------------------------------------------------

    def sample(self, num_rows: int, seed: int = 0, data: Any = None) -> dict[str, np.ndarray]:
        """New rows from the model: latents from their prior, then the observed sites.

        Args:
            num_rows: how many.
            seed: of the draws.
            data: arguments that the rows are conditioned on (a conditional model's), of that
                length; None where there are none.

        Returns:
            Site -> values, (num_rows, ...), latents too. What all rows share is drawn from q once.

        Raises:
            ArgumentError: if the model needs arguments that are not observed sites.
        """
        num_rows = check_count("num_rows", num_rows)
        columns = {} if data is None else self._given(data)[0]
        observed = set(self._model.arguments.values())
        if missing := [n for n in self._model.row_names if n not in columns and n not in observed]:
            raise ArgumentError(
                f"rows are conditioned on {listing(missing)}: give them, "
                f"data={{'{missing[0]}': values}}"
            )
        found = self._simulated(columns, 1, seed, _prior_values, num_rows)
        return {n: x[0] for n, x in found.items()}

    def predict(self, data: Any, draws: int = PREDICTED, seed: int = 0) -> dict[str, np.ndarray]:
        """Draws of the observed sites given the latents that rows are encoded to.

        Args:
            data: the model's arguments with rows.
            draws: how many of each row.
            seed: of the draws.

        Returns:
            Site -> values, (draws, rows, ...): replications of the data, for a variational
            autoencoder reconstructions. Where no latent has an encoder, what is to be predicted may
            be missing from ``data``.
        """
        columns, rows = self._given(data)
        if isinstance(self._bound.guide, Encoding):
            needed = {i for inputs in self._bound.guide.inputs.values() for i in inputs}
            if missing := [n for n in self._model.row_names if n in needed and n not in columns]:
                raise ArgumentError(f"the encoders need {listing(missing)}; data lacks them")
        draws = check_count("draws", draws)
        return self._simulated(columns, draws, seed, _encoded_values, rows)

    # --- what it is worth ---------------------------------------------------------------------

    def evidence(self, data: Any, samples: int = 1000, seed: int = 0) -> RowEvidence:
        """The log evidence of rows, from below: ELBO and importance-weighted bound.

        The cost is that of ``samples`` passes through the decoder a row; memory does not grow with
        them. Burda, Grosse and Salakhutdinov 2016 use 5,000.

        Args:
            data: the model's arguments with rows.
            samples: draws with importance weights for each row.
            seed: of the draws.

        Raises:
            ArgumentError: if the model has latents that all rows share.
        """
        columns = columns_of(self._model, data)
        samples = check_count("samples", samples)
        return row_evidence(self._bound, self._parameters, columns, samples, seed)

    @functools.cached_property
    def usage(self) -> "pd.DataFrame":
        """Divergence and activity of every latent dimension over the data of the fit."""
        return collapse.usage(self._bound, self._parameters, self._fitted.monitored, self.seed)

    @functools.cached_property
    def information(self) -> float:
        """Mutual information of a row and its latents under q, in nats, at most log of the rows."""
        return collapse.mutual_information(
            self._bound, self._parameters, self._fitted.monitored, self.seed
        )

    def refine(self, data: Any, steps: int = 200, seed: int = 0) -> Refined:
        """Improve q of some rows one by one, beginning at what the encoders say.

        The difference that this makes is the encoders' amortisation gap (Cremer, Li and Duvenaud
        2018). Gaussian latents without labels beside them only.

        Args:
            data: the model's arguments with rows.
            steps: of Adam.
            seed: of the draws.
        """
        columns = columns_of(self._model, data)
        return refine(self._bound, self._parameters, columns, check_count("steps", steps), seed)

    @property
    @override
    def notes(self) -> tuple[str, ...]:
        found = [collapse.warning(self.usage)]
        bound = self._bound.settings.bound
        if isinstance(bound, ImportanceWeighted | Renyi):
            found.append(
                "q was trained for a bound of several draws, which forgives a q that is too wide: the ELBO may be far "
                "below it; evidence(data) gives the tighter bound"
            )
        return (*super().notes, *(note for note in found if note))

    @property
    @override
    def plan(self) -> str:
        guide = self._bound.guide
        family = "a NumPyro guide"
        if isinstance(guide, Encoding):
            parts = [f"q({n} | {', '.join(guide.inputs[n])}) by a network" for n in guide.order]
            parts += ["Gaussians (mean field) of what all rows share"] if guide.shared else []
            family = "; ".join(parts) or "none"
        return self._plan(family, self._bound.settings.describe())

    def __repr__(self) -> str:
        """The bound, how the latents are used, how the fit ended."""
        rows = self._fitted.num_rows
        lines = [
            f"posterior of {self.name}: ELBO {self.elbo:,.1f} nats ({self.elbo / rows:,.2f} a row), "
            f"{self.seconds:.1f} s, {self.status.value}"
        ]
        if not self.usage.empty:
            active, count = int(np.sum(self.usage["active"])), len(self.usage)
            parts = [f"{active} of {count} latent dimensions active"]
            # NaN where a prior depends on another latent, or has no divergence in closed form.
            divergence = float(np.sum(self.usage["kl"].to_numpy()))
            parts += [f"divergence {divergence:.1f} nats a row"] if np.isfinite(divergence) else []
            if np.isfinite(self.information):
                parts.append(f"mutual information {self.information:.1f} nats")
            lines.append("  " + ", ".join(parts))
        lines += [
            f"  {n}  {_short(self.mean[n])} ± {_short(self.sd[n])}" for n in list(self.q)[:SHOWN]
        ]
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


def _mean_and_sd(fn: Distribution) -> tuple[np.ndarray, np.ndarray]:
    """Of a distribution; from draws where it has no formula."""
    try:
        return np.asarray(fn.mean), np.asarray(np.sqrt(np.asarray(fn.variance)))
    except NotImplementedError:
        draws = np.asarray(fn.sample(jax.random.key(0), (SUMMARISED,)))
        return np.asarray(draws.mean(0)), np.asarray(draws.std(0))


def _short(x: np.ndarray) -> str:
    return f"{float(x):.4g}" if x.ndim == 0 else f"[{x.size} numbers, mean {float(x.mean()):.4g}]"


def _encoded_values(objective: Bound, params: Any, columns: Any, key: Any) -> dict[str, Any]:
    """Draws of all latents from q."""
    values: dict[str, Any] = {}

    def sample(name: str, fn: Distribution) -> Any:
        values[name] = fn.sample(jax.random.fold_in(key, len(values)))
        return values[name]

    labels = objective.priors(params, columns)[1]
    objective.guide.sites(params["guide"], columns, labels)(sample)
    return values


def _shared(objective: Bound, params: Any, columns: Any) -> dict[str, Distribution]:
    """Q of the latents that all rows share."""
    found: dict[str, Distribution] = {}

    def sample(name: str, fn: Distribution) -> Any:
        if not objective.model.latents[name].local:
            found[name] = fn
        return fn.sample(jax.random.key(0))

    labels = objective.priors(params, columns)[1]
    objective.guide.sites(params["guide"], columns, labels)(sample)
    return found


def _prior_values(objective: Bound, params: Any, columns: Any, key: Any) -> dict[str, Any]:
    """Draws of what all rows share from q; the others are left to the model."""
    found = _encoded_values(objective, params, columns, key)
    return {n: found[n] for n, s in objective.model.latents.items() if not s.local}
