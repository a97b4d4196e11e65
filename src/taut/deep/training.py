"""From a model, a family and data to trained parameters."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions.transforms import biject_to

from taut._core.errors import ArgumentError, ModelError, listing
from taut._core.progress import Watch
from taut.data.feeds import AbstractFeed
from taut.deep.exact import find_mode, is_small
from taut.deep.guides import AbstractGuide, Encoding, Written
from taut.deep.independence import check_rows
from taut.deep.objective import Bound, LogDensity
from taut.deep.reading import read_rows
from taut.deep.rows import RowModel, Site
from taut.deep.supply import open_data
from taut.families import AbstractFamily, Amortised, Point
from taut.solvers.stochastic import Stochastic
from taut.training import Trained, train
from taut.training.placing import Placing

USUAL_BATCH = 128
START = 0.01  # sd of the coordinates that latents at points begin with
SMALL = 512  # rows up to which a step may take them all


@dataclasses.dataclass(frozen=True, eq=False)
class Fitted:
    """A trained model, before anything is read off it.

    Attributes:
        model: the model.
        guide: q; None for points.
        objective: what was minimised.
        trained: the run.
        num_rows: rows of the data in all.
        monitored: arguments with rows, of all rows or of 20,000.
        reasons: what was chosen and why, in sentences.
    """

    model: RowModel
    guide: AbstractGuide | None
    objective: Bound | LogDensity
    trained: Trained
    num_rows: int
    monitored: dict[str, Any]
    reasons: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Request:
    """What the user asked for, beside model and data."""

    family: Any = None
    solver: Stochastic | None = None
    batch_size: int | None = None
    validation: Any = None
    seed: int = 0
    mesh: Any = None
    checkpoint: Any = None


def fit_rows(
    model: Callable[..., Any], name: str, data: Any, asked: Request, watch: Watch
) -> Fitted:
    """Train a model's parameters and q over its latents by stochastic gradients.

    Raises:
        ModelError: if the model cannot be used; the message says which site, and why.
        ArgumentError: if family and model do not fit.
        DataError: if the data do not fit the model, or hold NaN or infinity.
    """
    source = open_data(model, data)
    rows, count = read_rows(model, name, source.arguments, source.num_examples)
    num_rows = source.num_rows or count
    settings, size, reasons = _settings(asked, num_rows)
    guide = _guide(rows, asked.family, source.arguments, count)
    check_rows(rows, {n: source.arguments[n] for n in rows.row_names})
    feed = source.feed(rows, size, asked.seed, asked.mesh)
    params = {"model": rows.params, "guide": {} if guide is None else guide.initial}
    if guide is None:
        starts = _own_starts(rows)
        keys = jax.random.split(jax.random.key(asked.seed), max(len(rows.latents), 1))
        pairs = zip(keys, rows.latents.items(), strict=False)
        params["guide"] = {n: _start(s, starts.get(n), key) for key, (n, s) in pairs}
        objective: Bound | LogDensity = LogDensity(rows, num_rows)
    else:
        objective = _bound(rows, guide, asked.family, settings, num_rows, feed, params)
    if not jax.tree.leaves(params):
        raise ModelError(f"{name} has neither latents nor parameters: there is nothing to infer")
    monitored = source.monitored(rows, size, asked.seed)
    chosen = asked.solver is not None or asked.batch_size is not None
    if isinstance(objective, LogDensity) and not chosen and is_small(params, num_rows):
        trained = find_mode(objective, params, monitored, watch)
        reasons = ("few parameters: second-order steps (BFGS) on all rows, in double precision",)
        return Fitted(rows, guide, objective, trained, num_rows, monitored, reasons)
    trained = train(
        objective,
        params,
        feed,
        settings.training,
        asked.seed,
        watch,
        validation=_validation(model, rows, asked, feed.batch_size),
        checkpoint=asked.checkpoint,
        identity=_identity(rows, num_rows, size, asked),
        placing=Placing(asked.mesh),
        unit=("log density" if guide is None else "ELBO", -float(num_rows)),
    )
    return Fitted(rows, guide, objective, trained, num_rows, monitored, reasons)


# --- choices --------------------------------------------------------------------------------------


def _settings(asked: Request, num_rows: int) -> tuple[Stochastic, int, tuple[str, ...]]:
    settings = Stochastic() if asked.solver is None else asked.solver
    sizes = {s for s in (asked.batch_size, settings.batch_size) if s is not None}
    if len(sizes) > 1:
        raise ArgumentError(
            f"batch_size is {asked.batch_size} in fit and {settings.batch_size} in the solver; give it once"
        )
    if sizes:
        size = min(sizes.pop(), num_rows)
        return settings, size, (f"minibatches of {size:,} of {num_rows:,} rows, as asked",)
    size = num_rows if num_rows <= SMALL else USUAL_BATCH
    return settings, size, (f"minibatches of {size:,} of {num_rows:,} rows",)


def _guide(
    rows: RowModel, family: Any, data: Mapping[str, Any], num_rows: int
) -> AbstractGuide | None:
    """Q for a family; None for points."""
    if isinstance(family, Point):
        if discrete := [n for n, s in rows.latents.items() if s.discrete]:
            raise ArgumentError(
                f"latent '{discrete[0]}' is discrete, and families.Point() fits values by gradients; sum it out in the "
                "model, or give it an encoder"
            )
        if local := [n for n, s in rows.latents.items() if s.local]:
            raise ArgumentError(
                f"latent '{local[0]}' belongs to rows; families.Point() is for what all rows share: give it an "
                "encoder, family=families.Amortised(...)"
            )
        return None
    if isinstance(family, AbstractFamily) and not isinstance(family, Amortised):
        raise ArgumentError(
            f"family must be families.Amortised, families.Point or a NumPyro guide for models with networks and "
            f"solvers.Stochastic, got {family.describe()}"
        )
    if family is None and not rows.latents:
        return None
    if family is None or isinstance(family, Amortised):
        return Encoding(rows, family, _own_starts(rows))
    if not callable(family):
        raise ArgumentError(
            f"family must be one of taut.families or a NumPyro guide function, got {type(family).__name__}"
        )
    return Written(family, rows, data, num_rows)


def _own_starts(rows: RowModel) -> dict[str, Any]:
    """Weights of random modules: the modules' own."""
    found = {}
    for param, value in rows.params.items():
        if not param.endswith("$params"):
            continue
        prefix = param.removesuffix("$params") + "/"
        for path, leaf in jax.tree_util.tree_flatten_with_path(value)[0]:
            site = prefix + jax.tree_util.keystr(path)[1:]
            if site in rows.latents:
                found[site] = leaf
    return found


def _bound(
    rows: RowModel,
    guide: AbstractGuide,
    family: Any,
    settings: Stochastic,
    num_rows: int,
    feed: AbstractFeed,
    params: Any,
) -> Bound:
    supervise = (family.supervise or {}) if isinstance(family, Amortised) else {}
    for name in supervise:
        if name not in rows.partly:
            raise ArgumentError(
                f"supervise has '{name}', which is no partly observed site; those are {listing(rows.partly)}. Give "
                "the site obs=values and obs_mask=known"
            )
    independent = _independent(rows, params["model"])
    return Bound(rows, guide, settings, num_rows, feed.steps_per_epoch, independent, supervise)


def _independent(rows: RowModel, theta: Any) -> frozenset[str]:
    """Latents whose prior is the same whatever the values of the others are."""

    def priors(key: Any) -> dict[str, list[Any]]:
        found = rows.distributions(rows.trace(theta, {}, rows.examples, key))
        return {n: [jnp.asarray(x) for x in jax.tree.leaves(fn)] for n, fn in found.items()}

    found = jax.jit(jax.vmap(priors))(jax.random.split(jax.random.key(1), 2))
    same = [n for n, leaves in found.items() if all(np.array_equal(x[0], x[1]) for x in leaves)]
    return frozenset(same)


def _start(site: Site, own: Any, key: Any) -> Any:
    """A network's own weights; other latents near zero.

    Not at zero, where the gradient of a product of latents vanishes with both of them.
    """
    if own is not None:
        return biject_to(site.support).inv(jnp.asarray(own))
    return START * jax.random.normal(key, biject_to(site.support).inverse_shape(site.shape))


def _validation(
    model: Callable[..., Any], rows: RowModel, asked: Request, size: int
) -> AbstractFeed | None:
    if asked.validation is None:
        return None
    source = open_data(model, asked.validation)
    return source.feed(rows, size, 0, asked.mesh, shuffle=False)


def _identity(rows: RowModel, num_rows: int, size: int, asked: Request) -> str:
    names = ", ".join((*rows.params, *rows.latents))
    return f"{rows.name} ({names}), {num_rows} rows in batches of {size}, seed {asked.seed}"
