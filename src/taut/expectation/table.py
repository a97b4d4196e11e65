r"""Log densities of NumPyro distributions in the simplest algebra.

NumPyro's own ``log_prob`` guards against bad arguments with clips, selections and fused special
functions, in which the structure that an exact expectation needs is lost. The formulas here use
sums, products, powers, logarithms and elementwise functions. They are to be read, not to be
evaluated at the edge of a support: there, 0 log 0 is not a number.

To add a distribution, write its log density and :func:`register` it::

    @register(dist.Normal)
    def _normal(d, x):
        return -0.5 * ((x - d.loc) / d.scale) ** 2 - jnp.log(d.scale) - HALF_LOG_2PI
"""

from taut.expectation import table_continuous as _continuous  # noqa: F401 - fills the table
from taut.expectation import table_discrete as _discrete  # noqa: F401 - fills the table
from taut.expectation.registry import TABLE, log_density, log_det, pick, register

__all__ = ["TABLE", "log_density", "log_det", "pick", "register"]
