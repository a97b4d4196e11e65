"""Latent Dirichlet allocation, batch: one label for every token.

Blei, Ng and Jordan (2003), section 5, with the topics Dirichlet too (section 5.4); Hoffman, Blei,
Wang and Paisley (2013), figure 5. Their gamma, phi and lambda are theta, z and topic here.
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from textbook.ascent import Textbook
from textbook.factors import Categorical, Dirichlet

DOCS, TOPICS, WORDS, LENGTH = 8, 3, 7, 15
THETA, TOPIC = Dirichlet(np.full(TOPICS, 0.8)), Dirichlet(np.full(WORDS, 0.6))


def make_data():
    rng = np.random.default_rng(34)
    topics = rng.dirichlet(np.full(WORDS, 0.3), TOPICS)
    doc = np.repeat(np.arange(DOCS), LENGTH)
    weights = rng.dirichlet(np.full(TOPICS, 0.5), DOCS)
    word = np.array([rng.choice(WORDS, p=weights[d] @ topics) for d in doc])
    return {"doc": doc, "word": word}


def model(doc, word):
    with numpyro.plate("topics", TOPICS):
        topic = numpyro.sample("topic", dist.Dirichlet(jnp.asarray(TOPIC.a)))
    with numpyro.plate("docs", DOCS):
        theta = numpyro.sample("theta", dist.Dirichlet(jnp.asarray(THETA.a)))
    with numpyro.plate("tokens", len(word)):
        z = numpyro.sample("z", dist.Categorical(theta[doc]))
        numpyro.sample("word", dist.Categorical(topic[z]), obs=word)


def _logits(data, q):
    """E[log theta_dk] + E[log topic_kw] of each token, (tokens, topics)."""
    return q["theta"].log[data["doc"]] + q["topic"].log.T[data["word"]]


def update_z(data, q):
    """Blei, Ng and Jordan (2003), eq. 6."""
    return Categorical.from_logits(_logits(data, q))


def update_theta(data, q):
    """Blei, Ng and Jordan (2003), eq. 7."""
    of_doc = np.eye(DOCS)[data["doc"]]
    return Dirichlet(THETA.a + of_doc.T @ q["z"].probs)


def update_topic(data, q):
    """Hoffman et al. (2013), the batch form of the global update."""
    of_word = np.eye(WORDS)[data["word"]]
    return Dirichlet(TOPIC.a + q["z"].probs.T @ of_word)


def expected_log_joint(data, q):
    tokens = np.sum(q["z"].probs * _logits(data, q))
    return tokens + THETA.mean_log_prob(q["theta"]) + TOPIC.mean_log_prob(q["topic"])


def make_start(data):
    rng = np.random.default_rng(1)
    return {
        "theta": Dirichlet(np.ones((DOCS, TOPICS))),
        "topic": Dirichlet(rng.gamma(100.0, 0.01, (TOPICS, WORDS))),  # equal topics never part
        "z": Categorical(np.full((len(data["word"]), TOPICS), 1.0 / TOPICS)),
    }


BOOKS = (
    Textbook(
        "latent Dirichlet allocation",
        "Blei, Ng and Jordan (2003), section 5; Hoffman et al. (2013), figure 5",
        model,
        make_data,
        make_start,
        {"z": update_z, "theta": update_theta, "topic": update_topic},
        expected_log_joint,
    ),
)
