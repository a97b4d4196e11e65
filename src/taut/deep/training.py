"""From a model, a family and data to trained parameters."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions.transforms import biject_to

from taut._core.errors import ArgumentError, DataError, ModelError, listing
from taut._core.progress import Watch
from taut.bounds import ELBO
from taut.data.feeds import AbstractFeed, InMemory
from taut.deep.guides import AbstractGuide, Encoding, NoGuide, Written
from taut.deep.objective import Bound, LogDensity
from taut.deep.rows import RowModel, Site, read_rows
from taut.families import AbstractFamily, Amortised, Point
from taut.problem.data import read
from taut.problem.numpyro_model import bind_arguments
from taut.solvers.stochastic import Stochastic
from taut.training import Trained, train
from taut.training.placing import Placing

USUAL_BATCH = 128
SMALL = 512  # rows up to which a step may take them all
MONITORED = 20_000  # rows on which the bound is read at the end


@dataclasses.dataclass(frozen=True, eq=False)
class Fitted:
    """A trained model, before anything is read off it.

    Attributes:
        model: the model.
        guide: q; None for points.
        objective: what was minimised.
        trained: the run.
        feed: of the data.
        batch_size: rows in a step.
        reasons: what was chosen and why, in sentences.
    """

    model: RowModel
    guide: AbstractGuide | None
    objective: Bound | LogDensity
    trained: Trained
    feed: AbstractFeed
    batch_size: int
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
    arguments = bind_arguments(model, read(data))
    columns_of_all = {n: _array(v, n) for n, v in arguments.items()}
    rows, num_rows = read_rows(model, name, columns_of_all)
    columns = {n: columns_of_all[n] for n in rows.row_names}
    _check_finite(columns)
    settings, size, reasons = _settings(asked, num_rows)
    guide = _guide(rows, asked.family, columns_of_all, num_rows)
    check_rows(rows, columns)
    feed = _feed(columns, size, asked.seed, asked.mesh)
    params = {"model": rows.params, "guide": {} if guide is None else guide.initial}
    if guide is None:
        params["guide"] = {n: _start(s) for n, s in rows.latents.items()}
        objective: Bound | LogDensity = LogDensity(rows, num_rows)
    else:
        objective = _bound(rows, guide, asked.family, settings, num_rows, feed, params)
    if not jax.tree.leaves(params):
        raise ModelError(f"{name} has neither latents nor parameters: there is nothing to infer")
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
    return Fitted(rows, guide, objective, trained, feed, size, reasons)


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
    """q for a family; None for points."""
    if isinstance(family, Point):
        if discrete := [n for n, s in rows.latents.items() if s.discrete]:
            raise ArgumentError(
                f"latent '{discrete[0]}' is discrete, and families.Point() fits values by gradients; sum it out in the "
                "model, or give it an encoder"
            )
        if local := [n for n, s in rows.latents.items() if s.local]:
            raise ArgumentError(
                f"latent '{local[0]}' belongs to rows; families.Point() is for what all rows share: give it an encoder, "
                "family=families.Amortised(...)"
            )
        return None
    if isinstance(family, AbstractFamily) and not isinstance(family, Amortised):
        raise ArgumentError(
            f"family must be families.Amortised, families.Point or a NumPyro guide for models with networks and "
            f"solvers.Stochastic, got {family.describe()}"
        )
    if family is None or isinstance(family, Amortised):
        if not rows.latents and family is None:
            return None
        return Encoding(rows, family, _own_starts(rows)) if rows.latents else NoGuide()
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
    found = []
    columns = rows.examples
    for seed in (1, 2):
        trace = rows.trace(theta, {}, columns, jax.random.key(seed))
        found.append(rows.distributions(trace))
    same = []
    for name, fn in found[0].items():
        pairs = zip(jax.tree.leaves(fn), jax.tree.leaves(found[1][name]), strict=True)
        if all(np.array_equal(a, b) for a, b in pairs):
            same.append(name)
    return frozenset(same)


def _start(site: Site) -> Any:
    return jnp.zeros(biject_to(site.support).inverse_shape(site.shape))


# --- data -----------------------------------------------------------------------------------------


def _array(value: Any, name: str) -> Any:
    leaves = jax.tree.leaves(value)
    if leaves and all(isinstance(x, np.ndarray | jax.Array) for x in leaves):
        return value
    return value


def _check_finite(columns: Mapping[str, Any]) -> None:
    for path, leaf in jax.tree_util.tree_flatten_with_path(dict(columns))[0]:
        values = np.asarray(leaf)
        if values.dtype.kind != "f" or np.isfinite(values).all():
            continue
        at = np.argwhere(~np.isfinite(values))[0]
        kind = "NaN" if np.isnan(values[tuple(at)]) else "infinite"
        raise DataError(
            f"data{jax.tree_util.keystr(path)} is {kind} at row {int(at[0]):,} (counted from 0); drop that row, or fill "
            "the value in"
        )


def _feed(columns: Any, size: int, seed: int, mesh: Any) -> AbstractFeed:
    Placing(mesh).check(size)
    return InMemory(columns, size, seed)


def _validation(
    model: Callable[..., Any], rows: RowModel, asked: Request, size: int
) -> AbstractFeed | None:
    if asked.validation is None:
        return None
    arguments = bind_arguments(model, read(asked.validation))
    columns = {n: arguments[n] for n in rows.row_names}
    _check_finite(columns)
    return InMemory(columns, size, shuffle=False)


def _identity(rows: RowModel, num_rows: int, size: int, asked: Request) -> str:
    names = ", ".join((*rows.params, *rows.latents))
    return f"{rows.name} ({names}), {num_rows} rows in batches of {size}, seed {asked.seed}"


# --- rows must be independent ---------------------------------------------------------------------


def check_rows(rows: RowModel, columns: Mapping[str, Any]) -> None:
    """Check that the log joint is a sum over rows: two parts of them must add up to both.

    Raises:
        ModelError: if a site's rows change with the others, or a site sums over them unseen.
    """
    if rows.draws_keys:
        return  # random masks differ with the shape of a batch
    count = len(jax.tree.leaves(columns)[0])
    half = min(4, count // 2)
    if not half:
        return
    index = np.random.default_rng(count).permutation(count)[: 2 * half]
    whole = _terms(rows, columns, index, None)
    first, second = (_terms(rows, columns, index, part) for part in (slice(half), slice(half, None)))
    for name, value in whole.items():
        a, b = first[name], second[name]
        together = np.concatenate([a, b]) if np.ndim(value) else a
        if not np.allclose(value, together, rtol=1e-3, atol=1e-4 * (1 + np.abs(value).max())):
            raise ModelError(_mixed(name, np.ndim(value) > 0, bool(np.allclose(value, a + b, rtol=1e-3))))


def _mixed(name: str, has_rows: bool, is_sum: bool) -> str:
    if has_rows:
        return (
            f"the log density of '{name}' for one row changes with the other rows of its batch (a mean over the batch, such as "
            "batch normalisation, does that), so a minibatch says nothing about all rows"
        )
    hint = "it adds up over rows unseen: " if is_sum else "it changes with the rows and is no sum over them: "
    return (
        f"site '{name}' has no axis along the rows, yet {hint}write it as one term a row inside of "
        "numpyro.plate('rows', len(y)), so that minibatches can be scaled rightly"
    )


def _terms(
    rows: RowModel, columns: Mapping[str, Any], index: np.ndarray, part: slice | None
) -> dict[str, Any]:
    """Site -> its log density on some rows at fixed values: (n,) or ()."""
    full = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)[index]), dict(columns))
    trace = rows.trace(rows.params, {}, full, jax.random.key(7))
    values = {}
    for name, site in rows.latents.items():
        value = trace[name if name in trace else name + "_unobserved"]["value"]
        if part is not None and site.local:
            axis = site.row_axis - site.event_dims + value.ndim
            value = jnp.moveaxis(jnp.moveaxis(value, axis, 0)[part], 0, axis)
        values[name] = value
    if part is not None:
        full = jax.tree.map(lambda x: x[part], full)
    found = rows.terms(rows.trace(rows.params, values, full))
    return {n: np.asarray(x) for n, x in found.items()}
