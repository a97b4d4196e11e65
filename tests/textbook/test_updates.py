"""Coordinate ascent of taut against the textbooks': the same q after every sweep.

The one rule (natural parameter <- gradient of the expected log joint) starts from the textbook's
factors, updates them in the textbook's order, and has to give its factors and its ELBO after one,
two and five sweeps, to rounding. Nothing here is random: no test can fail by chance.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan

from taut import families
from taut._core.errors import SolverError
from taut._core.precision import double_precision
from taut._core.progress import Watch
from taut._core.status import Status
from taut.expectation.gaussian import Scaled
from taut.problem import describe
from taut.solvers import blocks as block_rules
from taut.solvers.ascent import ascend, engine_of
from taut.solvers.blocks import sweep
from taut.solvers.mean_field import describe_factor
from taut.solvers.structure import choose_layout
from textbook import factorial_hmm, hmm
from textbook import factors as book_factors
from textbook.books import BOOKS, TRUTHS
from textbook.joint_factors import Chain, NormalGamma, NormalWishart

SWEEPS = (1, 2, 5)
RELATIVE = 1e-12  # of ELBOs and parameters after the same sweeps; rounding makes up to 1e-14


# --- models with the labels of a chain in one site ------------------------------------------------


def categorical_scan(y):
    with numpyro.plate("states", hmm.K):
        rows = numpyro.sample("rows", dist.Dirichlet(jnp.asarray(hmm.ROWS.a)))
        emission = numpyro.sample("emission", dist.Dirichlet(jnp.asarray(hmm.EMISSION.a)))
    table = jnp.concatenate([rows, jnp.asarray(hmm.INITIAL)[None]])  # its last row starts the chain

    def step(previous, y_t):
        z = numpyro.sample("z", dist.Categorical(table[previous]))
        numpyro.sample("y", dist.Categorical(emission[z]), obs=y_t)
        return z, None

    scan(step, jnp.asarray(hmm.K), y)


def factorial_scan(y):
    _unrelated()
    names, level = ("a", "b"), factorial_hmm.LEVEL
    tables = {
        n: jnp.asarray(np.vstack([factorial_hmm.ROWS[n], factorial_hmm.INITIAL[n]])) for n in names
    }

    def step(previous, y_t):
        label = {n: numpyro.sample(n, dist.Categorical(tables[n][previous[n]])) for n in names}
        mean = sum(jnp.asarray(level[n])[label[n]] for n in names)
        numpyro.sample("y", dist.Normal(mean, factorial_hmm.SD), obs=y_t)
        return label, None

    scan(step, {n: jnp.asarray(len(factorial_hmm.INITIAL[n])) for n in names}, y)


def _unrelated():
    """A latent that no other site depends on: models of discrete latents alone are refused.

    Its factor is its prior, and adds nothing to the ELBO.
    """
    numpyro.sample("unrelated", dist.Normal(0.0, 1.0))


SCANS = {
    "hidden Markov model, Gaussian emission": hmm.scan_model,
    "hidden Markov model, categorical emission": categorical_scan,
    "factorial hidden Markov model": factorial_scan,
}
SITE = {hmm.LABELS: "z"} | {sites: name for name, sites in factorial_hmm.SITES.items()}
UNRELATED = {"unrelated": book_factors.Normal(0.0, 1.0)}


# --- the textbook's factors as taut's -------------------------------------------------------------


def translated(name, factor):
    """A factor of taut equal to one of the textbook's."""
    if isinstance(factor, book_factors.Normal):
        mean = np.asarray(factor.mean, float)
        variance = np.broadcast_to(factor.variance, mean.shape).reshape(-1, 1, 1)
        return families.Gaussian({name: mean.shape}, mean, variance, mean.ndim)
    if isinstance(factor, book_factors.Gaussian):
        mean = factor.mean
        return families.Gaussian({name: mean.shape}, mean, factor.covariance, mean.ndim - 1)
    if isinstance(factor, Chain):
        first = np.zeros((len(factor.transitions) + 1, len(factor.initial)))
        first[0] = np.log(factor.initial)
        return families.Chain(first, np.log(factor.transitions))
    if isinstance(factor, NormalGamma):
        mean, variance = np.asarray(factor.mean), np.reshape(1.0 / factor.kappa, (-1, 1, 1))
        block = families.Gaussian({name[0]: mean.shape}, mean, variance, mean.ndim)
        return Scaled(block, families.Gamma(factor.a, factor.b), name[1])
    if isinstance(factor, NormalWishart):
        mean = factor.mean
        covariance = np.eye(mean.shape[-1]) / np.reshape(factor.kappa, (-1, 1, 1))
        block = families.Gaussian({name[0]: mean.shape}, mean, covariance, mean.ndim - 1)
        return Scaled(block, families.Wishart(factor.df, factor.scale), name[1])
    kind = getattr(families, type(factor).__name__)
    return kind(*(getattr(factor, field.name) for field in dataclasses.fields(factor)))


def parameters(factor):
    """What q is: a Gaussian's moments, any other factor's mean parameters."""
    if isinstance(factor, Scaled):
        return (*parameters(factor.normal), *parameters(factor.precision))
    if isinstance(factor, families.Gaussian):
        return (factor.mean, factor.covariance)
    return factor.mean


def named(key):
    """The name in taut of what the textbook calls so; joint factors have a tuple of latents."""
    return SITE.get(key, key if isinstance(key, str) else ", ".join(key))


def all_translated(book_q):
    q = {named(key): translated(SITE.get(key, key), factor) for key, factor in book_q.items()}
    return q | {n: translated(n, f) for n, f in UNRELATED.items() if set(q) == {"a", "b"}}


def assert_equal_factors(q, expected, relative):
    assert set(q) == set(expected)
    for name, factor in expected.items():
        for mine, theirs in zip(parameters(q[name]), parameters(factor), strict=True):
            scale = np.max(np.abs(theirs))
            assert np.allclose(mine, theirs, rtol=relative, atol=relative * scale), name


# --- fits in the textbook's order -----------------------------------------------------------------


class Prepared:
    """A book's model as taut reads it, with q at the book's start and the book's order."""

    def __init__(self, book):
        self.data = book.make_data()
        self.problem = fresh(describe(SCANS.get(book.name, book.model), self.data))
        self.start = all_translated(book.make_start(self.data))
        blocks = [f for f in self.start.values() if isinstance(f, families.Gaussian | Scaled)]
        gaussians = [f.normal if isinstance(f, Scaled) else f for f in blocks]
        layout = choose_layout(self.problem, tuple(f.names for f in gaussians))
        scales = [f.precision_name if isinstance(f, Scaled) else "" for f in blocks]
        batches = tuple(f.batch_ndim for f in gaussians)
        self.layout = dataclasses.replace(layout, batches=batches, scales=tuple(scales))
        engine = engine_of(self.problem, self.layout)
        order = [named(key) for key in (*book.updates, *UNRELATED)]
        blocks = tuple(sorted(engine.blocks, key=lambda block: order.index(block.name)))
        run = jax.jit(functools.partial(sweep, blocks=blocks))
        self.engine = dataclasses.replace(engine, blocks=blocks, run=run)
        self.problem.program.compiled["ascent", self.layout] = self.engine
        self.sites = engine.fold(self.problem.arrays)

    def ascend(self, start, tolerance=1e-6):
        assert engine_of(self.problem, self.layout) is self.engine
        return ascent_of(self.problem, self.layout, start, tolerance)


def fresh(problem):
    """The problem with a memory of its own: what is put there must not reach other tests."""
    program = dataclasses.replace(problem.program, compiled={})
    return dataclasses.replace(problem, program=program)


@functools.cache
def prepared(name):
    with double_precision():
        return Prepared(next(book for book in BOOKS if book.name == name))


def ascent_of(problem, layout, start=None, tolerance=1e-6):
    with Watch(None, False, ()) as watch:
        return ascend(problem, layout, 0, watch, tolerance, start=start)


each_book = pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.name)


@pytest.mark.parametrize("truth", TRUTHS, ids=lambda truth: truth.name)
def test_the_exact_posterior_is_found(truth):
    problem = describe(truth.model, truth.data)
    with double_precision():
        layout = choose_layout(problem, None)
        ascent = ascent_of(problem, layout)
        expected = {
            named(names): translated(names, factor) for names, factor in truth.posterior.items()
        }
        assert_equal_factors(ascent.q, expected, 1e-8)
    assert abs(ascent.elbo - truth.log_evidence) < 1e-8
    assert ascent.status is Status.CONVERGED


@each_book
def test_factors_have_the_textbooks_kind(book):
    """Read off the model, nothing given."""
    ready, expected = prepared(book.name), {}
    for name, factor in ready.start.items():
        joint = isinstance(factor, Scaled)
        parts = (
            {factor.normal.names[0]: factor.normal, factor.precision_name: factor.precision}
            if joint
            else {name: factor}
        )
        expected |= {n: type(part).__name__.lower() for n, part in parts.items()}
    assert {name: kind.replace("_", "") for name, kind in ready.layout.kinds} == expected


JOINT = {
    "diagonal Gaussian mixture, normal-gamma": ("mu", "tau", "normal-gamma"),
    "full Gaussian mixture, normal-Wishart": ("mu", "precision", "normal-Wishart"),
}


@pytest.mark.parametrize("name", JOINT)
def test_a_joint_factor_is_chosen_where_terms_allow_it(name):
    """Nothing given; the mixture of the same data with independent priors has none."""
    mean, precision, kind = JOINT[name]
    book = next(book for book in BOOKS if book.name == name)
    apart = next(b for b in BOOKS if b.name == name.split(",")[0] + ", factorised")
    for model, scale in ((book.model, precision), (apart.model, "")):
        problem = describe(model, book.make_data())
        with double_precision():
            layout = choose_layout(problem, None)
        assert layout.scales[layout.blocks.index((mean,))] == scale
        assert (kind in describe_factor(mean, layout)) == bool(scale)


@each_book
def test_sweeps_are_the_textbooks(book):
    ready, steps = prepared(book.name), {}
    reference = book.reference(ready.data, iterations=max(SWEEPS))
    assert all(block.is_conjugate for block in ready.engine.blocks)
    with double_precision():
        q, sites = ready.start, ready.sites
        assert np.isclose(ready.engine.bound(q, sites), reference.history[0], rtol=RELATIVE, atol=0)
        for count in range(1, max(SWEEPS) + 1):
            q, steps, bound = ready.engine.run(q, sites, steps)
            assert np.isclose(bound, reference.history[count], rtol=RELATIVE, atol=0), count
            if count in SWEEPS:
                theirs = book.reference(ready.data, iterations=count).factors
                assert_equal_factors(q, all_translated(theirs), RELATIVE)


@each_book
def test_convergence_is_the_textbooks(book):
    """The driver stops by itself where the textbook does, from where that is after ten sweeps."""
    ready = prepared(book.name)
    near = book.reference(ready.data, iterations=10)
    far = near
    while far is near or far.history[-1] - far.history[-2] > 1e-12:
        far = book.reference(ready.data, iterations=20, start=far.factors)
    with double_precision():
        start = all_translated(near.factors)
        ascent = ready.ascend(start, tolerance=1e-9)
    assert ascent.status is Status.CONVERGED
    assert abs(ascent.elbo - far.elbo) < 1e-7
    assert abs(ascent.history[0] - near.elbo) < 1e-8


@each_book
def test_the_elbo_never_falls(book):
    """From the textbook's start; 1e-11 of the ELBO is left to rounding."""
    ready = prepared(book.name)
    with double_precision():
        history = np.array(ready.ascend(ready.start).history)
    assert np.all(np.diff(history) > -1e-11 * (1.0 + np.abs(history[1:])))
    assert len(history) > 2


# --- chains ---------------------------------------------------------------------------------------


def known_chain(y):
    _unrelated()
    table = jnp.asarray([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4], [0.5, 0.3, 0.2]])
    level = jnp.asarray([-1.0, 0.5, 2.0])

    def step(previous, y_t):
        z = numpyro.sample("z", dist.Categorical(table[previous]))
        numpyro.sample("y", dist.Normal(level[z], 0.8), obs=y_t)
        return z, None

    scan(step, jnp.asarray(3), y)


def log_evidence(y):
    """Forward algorithm in NumPy, Bishop (2006), eq. 13.59."""
    table = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]])
    level, ahead, total = np.array([-1.0, 0.5, 2.0]), np.array([0.5, 0.3, 0.2]), 0.0
    for value in y:
        joint = ahead * np.exp(-0.5 * ((value - level) / 0.8) ** 2) / (0.8 * np.sqrt(2.0 * np.pi))
        total += np.log(joint.sum())
        ahead = joint / joint.sum() @ table
    return total


@pytest.mark.parametrize("length", [2, 100])
def test_a_chain_is_exact_where_nothing_else_is_unknown(length):
    y = np.random.default_rng(61).normal(0.5, 1.5, length)
    problem = describe(known_chain, {"y": y})
    with double_precision():
        layout = choose_layout(problem, None)
        ascent = ascent_of(problem, layout)
    assert dict(layout.kinds)["z"] == "chain"
    assert abs(ascent.elbo - log_evidence(y)) < 1e-8


def test_labels_in_separate_sites_are_independent_in_q():
    """The chain is only seen in one site; else each label has a factor of its own."""
    book = hmm.BOOKS[0]
    problem = describe(book.model, {"y": book.make_data()["y"][:4]})
    with double_precision():
        kinds = dict(choose_layout(problem, None).kinds)
    assert {kinds[f"z_{t}"] for t in range(4)} == {"categorical"}


# --- a rule that is broken ------------------------------------------------------------------------


def test_a_broken_rule_is_named(monkeypatch):
    """A Newton step in the wrong direction lowers the ELBO, and its block is blamed."""

    def model(x, y):
        tau = numpyro.sample("tau", dist.Gamma(2.0, 1.0))
        slope = numpyro.sample("slope", dist.Normal(0.0, 2.0))
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", dist.Normal(slope * x, 1.0 / jnp.sqrt(tau)), obs=y)

    right = block_rules._gaussian_step

    def wrong(factor, cotangent, step):
        new, proper = right(factor, cotangent, step)
        return dataclasses.replace(new, mean=2.0 * factor.mean - new.mean), proper

    rng = np.random.default_rng(62)
    x = rng.standard_normal(30)
    problem = describe(model, {"x": x, "y": 1.5 * x + 0.5 * rng.standard_normal(30)})
    with double_precision():
        layout = choose_layout(problem, None)
        monkeypatch.setattr(block_rules, "_gaussian_step", wrong)
        with pytest.raises(SolverError, match="'slope' lowered the ELBO"):
            ascent_of(problem, layout)
