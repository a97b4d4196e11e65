"""Every textbook coordinate ascent: `BOOKS`; every exact posterior: `TRUTHS`."""

from textbook import (
    bernoulli_mixture,
    diagonal_mixture,
    factor_analysis,
    factorial_hmm,
    full_mixture,
    hierarchical,
    hmm,
    lda,
    linear_regression,
)
from textbook.ascent import Textbook
from textbook.truths import TRUTHS

__all__ = ["BOOKS", "TRUTHS"]

BOOKS: tuple[Textbook, ...] = (
    *linear_regression.BOOKS,
    *diagonal_mixture.BOOKS,
    *full_mixture.BOOKS,
    *bernoulli_mixture.BOOKS,
    *lda.BOOKS,
    *factor_analysis.BOOKS,
    *hierarchical.BOOKS,
    *hmm.BOOKS,
    *factorial_hmm.BOOKS,
)
