"""Latent Dirichlet allocation on the AP corpus: taut, scikit-learn and gensim.

Batch variational Bayes from the same random topics, gensim by minibatches as it is meant to be used.
Every method is judged by one estimator, from its topics' posterior means: half of the words of each
held-out document give its weights by maximum a posteriori, the other half are scored.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from benchmarks.fresh import ROOT
from benchmarks.peers_sweeps import Stopwatch, Sweeps

CORPUS = ROOT.parent / "shared" / "data" / "text" / "ap.npz"
TOPICS, PRIOR = 20, 0.1
HELD_OUT = 0.15  # share of the documents
WITHIN = 1.01  # of the best perplexity
BUDGET = 90.0  # seconds a method
COLD, INNER = 12, 10  # first sweeps of taut, and updates of a document's weights in each
FOLD_IN = 50  # steps of the weights of a held-out document

Curve = list[tuple[float, float]]  # seconds, perplexity


def load(path: Path) -> tuple[Any, Any, Any]:
    """Training documents, and the two halves of the held-out ones; documents x words."""
    with np.load(path, allow_pickle=True) as found:
        shape = len(found["ptr"]) - 1, len(found["vocab"])
        counts = sparse.csr_matrix(
            (found["count"].astype(float), found["word"], found["ptr"]), shape
        )
    rng = np.random.default_rng(0)
    order = rng.permutation(shape[0])
    test, train = np.split(order, [int(HELD_OUT * shape[0])])
    whole = counts[test].tocoo()
    first = rng.binomial(whole.data.astype(int), 0.5).astype(float)
    place = whole.row, whole.col
    halves = (sparse.csr_matrix((c, place), whole.shape) for c in (first, whole.data - first))
    return counts[train], *halves


def perplexity(topics: np.ndarray, seen: Any, scored: Any) -> float:
    """Of the scored halves, given topics x words probabilities."""
    theta = np.full((seen.shape[0], len(topics)), 1.0 / len(topics))
    row, col = seen.nonzero()
    counts = np.asarray(seen[row, col]).ravel()
    for _ in range(FOLD_IN):
        ratio = counts / np.einsum("nk,kn->n", theta[row], topics[:, col])
        weight = sparse.csr_matrix((ratio, (row, col)), seen.shape) @ topics.T
        theta = theta * weight + PRIOR
        theta /= theta.sum(1, keepdims=True)
    row, col = scored.nonzero()
    logs = np.log(np.einsum("nk,kn->n", theta[row], topics[:, col]))
    counts = np.asarray(scored[row, col]).ravel()
    return float(np.exp(-np.sum(counts * logs) / counts.sum()))


def model(doc: Any, word: Any, shape: tuple[int, int]) -> None:
    """Blei, Ng and Jordan (2003), section 5.4: a label for every word."""
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    with numpyro.plate("topics", TOPICS):
        topic = numpyro.sample("topic", dist.Dirichlet(jnp.full(shape[1], PRIOR)))
    with numpyro.plate("documents", shape[0]):
        theta = numpyro.sample("theta", dist.Dirichlet(jnp.full(TOPICS, PRIOR)))
    with numpyro.plate("words", len(word)):
        z = numpyro.sample("z", dist.Categorical(theta[doc]))
        numpyro.sample("word", dist.Categorical(topic[z]), obs=word)


def _taut(train: Any, start: np.ndarray) -> Iterator[np.ndarray]:
    from taut.families import Dirichlet
    from taut.problem import elimination

    # A mean field needs no sum over the labels, whose tables would be refused at this size.
    elimination.MAX_NUMBERS = 2**50
    doc, word = train.nonzero()
    times = np.asarray(train[doc, word]).ravel().astype(int)
    data = {"doc": np.repeat(doc, times), "word": np.repeat(word, times), "shape": train.shape}
    sweeps = Sweeps(model, data)
    with sweeps.precision():
        even = sweeps.q["theta"]
        q = sweeps.q | {"topic": Dirichlet(start)}
    for _ in range(COLD):
        # Weights that start evenly find topics that they would not come back to.
        q = sweeps.repeat(q | {"theta": even}, ("z", "theta"), INNER)
        q = sweeps.repeat(q, ("topic",), 1)
        yield np.asarray(q["topic"].concentration)
    while True:
        q, _ = sweeps.sweep(q)
        yield np.asarray(q["topic"].concentration)


def _scikit_learn(train: Any, start: np.ndarray) -> Iterator[np.ndarray]:
    from scipy.special import psi
    from sklearn.decomposition import LatentDirichletAllocation

    fitted = LatentDirichletAllocation(
        TOPICS,
        doc_topic_prior=PRIOR,
        topic_word_prior=PRIOR,
        learning_method="batch",
        random_state=0,
    )
    fitted._init_latent_vars(train.shape[1])
    fitted.components_ = start.copy()
    fitted.exp_dirichlet_component_ = np.exp(psi(start) - psi(start.sum(1, keepdims=True)))
    while True:
        fitted._em_step(train, total_samples=train.shape[0], batch_update=True)
        yield fitted.components_


def _gensim(train: Any, start: np.ndarray) -> Iterator[np.ndarray]:
    from gensim.matutils import Sparse2Corpus
    from gensim.models import LdaModel

    corpus = list(Sparse2Corpus(train, documents_columns=False))
    names = {i: str(i) for i in range(train.shape[1])}
    fitted = LdaModel(
        id2word=names, num_topics=TOPICS, alpha=[PRIOR] * TOPICS, eta=PRIOR, chunksize=256,
        eval_every=None, random_state=0,
    )  # fmt: skip
    while True:
        fitted.update(corpus)
        yield fitted.state.get_lambda()


def _curve(
    steps: Iterator[np.ndarray], judge: Callable[[np.ndarray], float]
) -> tuple[Curve, float]:
    """Seconds and perplexity after each iteration, and the median seconds of one."""
    clock, curve, spent = Stopwatch(), [], []
    while clock.wall < BUDGET:
        before = clock.wall
        with clock:
            topics = next(steps)
        spent.append(clock.wall - before)
        curve.append((clock.wall, judge(topics / topics.sum(1, keepdims=True))))
        if len(curve) > 10 and curve[-1][1] > 0.9995 * curve[-6][1]:
            break
    return curve, float(np.median(spent[1:]))


def measure() -> dict[str, Any]:
    """The rows of the table."""
    title = "Latent Dirichlet allocation, AP corpus"
    if not CORPUS.exists():
        return {"title": title, "rows": [], "note": "the corpus is not there (shared/data/text)"}
    train, seen, scored = load(CORPUS)
    start = np.random.default_rng(1).gamma(100.0, 0.01, (TOPICS, train.shape[1]))
    methods = {"taut": _taut, "scikit-learn": _scikit_learn, "gensim": _gensim}
    curves = {
        name: _curve(method(train, start), lambda topics: perplexity(topics, seen, scored))
        for name, method in methods.items()
    }
    target = WITHIN * min(p for name, (c, _) in curves.items() if name != "taut" for _, p in c)
    rows = []
    for name, (curve, each) in curves.items():
        first = curve[0][0] - each  # compiling, before the first iteration
        reached = next((t for t, p in curve if p <= target), None)
        rows.append({
            "method": name, "s an iteration": each, "setup s": first, "iterations": len(curve),
            "perplexity": curve[-1][1], "best": min(p for _, p in curve), "s to target": reached,
            "warm": None if reached is None else reached - first,
        })  # fmt: skip
    note = (
        f"{train.shape[0]} documents, {int(train.sum())} words, {TOPICS} topics; held out {seen.shape[0]} documents. "
        f"Target: {WITHIN:g} times the peers' best perplexity, {target:.0f}."
    )
    return {"title": title, "rows": rows, "note": note}
