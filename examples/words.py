"""A sequence model for words: letter by letter, given a latent vector for the whole word.

Bowman et al. 2016, Generating sentences from a continuous space, in small. A word is one site whose
distribution is a recurrent network: its density reads the letters so far, its draws write them.
The words are the names of the numbers from 1 to 99, a quarter of which the model never sees, so it
can be checked whether what it writes is the name of a number, and whether it was only copied.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import taut

ONES = """one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
sixteen seventeen eighteen nineteen""".split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
LETTERS = ".-abcdefghijklmnopqrstuvwxyz"  # the first one ends a word
COUNT, LENGTH, LATENT, HIDDEN = len(LETTERS), 14, 4, 32
GIVEN = 1e6  # noise with which no other letter can be drawn
k1, k2, k3, k4, k5 = jax.random.split(jax.random.key(0), 5)


class Writer(eqx.Module):
    """From a latent vector to log odds at each place, and the letters that noise draws there."""

    first: eqx.nn.Linear
    cell: eqx.nn.GRUCell
    out: eqx.nn.Linear

    def __call__(self, z, noise):
        """Draw letter after letter: that with the largest sum of log odds and Gumbel noise."""

        def step(carry, noise):
            state, last = carry
            state = self.cell(jnp.concatenate([jax.nn.one_hot(last, COUNT), z]), state)
            logits = self.out(state)
            letter = jnp.argmax(logits + noise)
            return (state, letter), (logits, letter)

        return jax.lax.scan(step, (self.first(z), jnp.zeros((), int)), noise)[1]


class Reader(eqx.Module):
    """Means and log scales of the latent vector, from a word."""

    cell: eqx.nn.GRUCell
    out: eqx.nn.Linear

    def __call__(self, word):
        """Read letter after letter."""
        letters = jax.nn.one_hot(word, COUNT)
        state, _ = jax.lax.scan(lambda s, x: (self.cell(x, s), None), jnp.zeros(HIDDEN), letters)
        return self.out(state)


class Word(dist.Distribution):
    """Letters until the first end, (batch, LENGTH), given latent vectors, (batch, LATENT)."""

    support = dist.constraints.independent(dist.constraints.integer_interval(0, COUNT - 1), 1)

    def __init__(self, write, z):
        self.write, self.z = write, z
        super().__init__(z.shape[:-1], (LENGTH,))

    def sample(self, key, sample_shape=()):
        """Draw words."""
        noise = jax.random.gumbel(key, (*sample_shape, *self.batch_shape, LENGTH, COUNT))
        return self.write(self.z, noise)[1]

    def log_prob(self, value):
        """Log probability of the letters; those after the first end do not count."""
        given = jax.nn.one_hot(value, COUNT)
        logits, _ = self.write(self.z, GIVEN * given)
        each = jnp.sum(given * jax.nn.log_softmax(logits), -1)
        ended = jnp.cumsum(value == 0, -1) > (value == 0)
        return jnp.sum(jnp.where(ended, 0.0, each), -1)


FIRST, LAST = eqx.nn.Linear(LATENT, HIDDEN, key=k1), eqx.nn.Linear(HIDDEN, COUNT, key=k2)
WRITER = Writer(FIRST, eqx.nn.GRUCell(COUNT + LATENT, HIDDEN, key=k3), LAST)
READER = Reader(eqx.nn.GRUCell(COUNT, HIDDEN, key=k4), eqx.nn.Linear(HIDDEN, 2 * LATENT, key=k5))


def words(x):
    """A latent vector for each word, and its letters."""
    write = taut.deep.module("writer", WRITER, event_dims=(1, 2))
    with numpyro.plate("words", len(x)):
        z = numpyro.sample("z", dist.Normal(0, 1).expand([LATENT]).to_event(1))
        numpyro.sample("x", Word(write, z), obs=x)


def fit(x):
    """Train writer and reader."""
    solver = taut.solvers.Stochastic(epochs=400, learning_rate=0.02, kl_warmup=200)
    return taut.fit(words, {"x": x}, family=taut.families.Amortised({"z": READER}), solver=solver)


# --- data -----------------------------------------------------------------------------------------


def names():
    """Of the numbers from 1 to 99."""
    return [*ONES, *(t if not i else f"{t}-{ONES[i - 1]}" for t in TENS for i in range(10))]


def coded(found):
    """Indices of the letters, (words, LENGTH), padded with ends."""
    return np.array([[LETTERS.index(c) for c in word.ljust(LENGTH, ".")] for word in found])


def spelled(codes):
    """The words of some codes."""
    return ["".join(LETTERS[c] for c in row).split(".")[0] for row in codes]


def main():
    """Train on three quarters of the names; write 500."""
    known = names()
    order = np.random.default_rng(0).permutation(99)
    seen, unseen = ({known[i] for i in part} for part in (order[:75], order[75:]))
    posterior = fit(coded(sorted(seen)))
    written = spelled(posterior.sample(500)["x"])
    valid = float(np.mean([word in known for word in written]))
    new = len(unseen & set(written))
    print(posterior)
    print("written:", ", ".join(written[:12]))
    print(f"{valid:.0%} are names of numbers; among them {new} of the {len(unseen)} left out")
    return {"valid": valid, "new": new / len(unseen)}


if __name__ == "__main__":
    main()
