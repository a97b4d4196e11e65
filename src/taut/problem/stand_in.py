"""A continuous latent for models that have none, so that one machinery serves them all.

Their discrete latents are summed out beside it; nothing depends on it, and results leave it out.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpyro
import numpyro.distributions as dist

STAND_IN = "no continuous latent"  # the name of the site, as messages may show it
NOTE = "no latent is continuous: a standard normal on which nothing depends stands in for one"


def with_stand_in(model: Callable[..., Any]) -> Callable[..., Any]:
    """The model with a standard normal latent on which nothing depends."""

    @functools.wraps(model)
    def extended(*args: Any, **kwargs: Any) -> Any:
        numpyro.sample(STAND_IN, dist.Normal(0.0, 1.0))
        return model(*args, **kwargs)

    return extended


def without_stand_in(values: Mapping[str, Any]) -> dict[str, Any]:
    """What belongs to the model's own sites."""
    return {name: value for name, value in values.items() if name != STAND_IN}
