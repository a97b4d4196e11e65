"""A continuous latent for models that have none, so that one machinery serves them all.

Their discrete latents are summed out beside it; nothing depends on it, and results leave it out.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpyro
import numpyro.distributions as dist

STAND_IN = "no continuous latent"  # the name of the site, as messages may show it


def with_stand_in(model: Callable[..., Any]) -> Callable[..., Any]:
    """The model with a standard normal latent on which nothing depends."""

    @functools.wraps(model)
    def extended(*args: Any, **kwargs: Any) -> Any:
        numpyro.sample(STAND_IN, dist.Normal(0.0, 1.0))
        return model(*args, **kwargs)

    return extended
