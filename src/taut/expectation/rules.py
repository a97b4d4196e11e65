"""The rule of every operation that is not elementwise."""

from collections.abc import Callable

from taut.expectation.contractions import cumsum, dot_general, reduce_sum, triangular_solve
from taut.expectation.elementwise import Value
from taut.expectation.structural import (
    broadcast_in_dim,
    concatenate,
    dynamic_slice,
    expand_dims,
    gather,
    pad,
    reshape,
    rev,
    slice_,
    squeeze,
    transpose,
)  # fmt: skip

RULES: dict[str, Callable[..., Value]] = {
    "broadcast_in_dim": broadcast_in_dim, "transpose": transpose, "squeeze": squeeze,
    "expand_dims": expand_dims, "reshape": reshape, "slice": slice_, "rev": rev,
    "dynamic_slice": dynamic_slice, "gather": gather, "concatenate": concatenate, "pad": pad,
    "reduce_sum": reduce_sum, "dot_general": dot_general, "cumsum": cumsum,
    "triangular_solve": triangular_solve,
}  # fmt: skip
