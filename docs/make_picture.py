"""Draw the README's picture: seven points, the defaults of today, and taut.

    python docs/make_picture.py

Writes docs/picture.svg. The seven points are those of a public bug report on a regression that
the defaults of variational libraries get wrong.
"""

from pathlib import Path

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoNormal

import taut

X = np.array([1.17, 2.97, 3.26, 4.69, 5.83, 6.0, 6.41])
Y = np.array([78.93, 58.2, 67.47, 37.47, 45.65, 32.92, 29.97])
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 380, 56, 24, 46, 44
X_RANGE, Y_RANGE = (0.5, 7.0), (0.0, 100.0)


def model(x, y=None):
    """A straight line with vague priors."""
    a = numpyro.sample("a", dist.Normal(0, 100))
    b = numpyro.sample("b", dist.Normal(0, 100))
    s = numpyro.sample("s", dist.HalfCauchy(5))
    numpyro.sample("y", dist.Normal(a + b * x, s), obs=y)


def stochastic_slope(steps: int = 10_000) -> tuple[float, float]:
    """Intercept and slope of mean-field SVI with Adam at a rate of 0.01."""
    guide = AutoNormal(model)
    svi = SVI(model, guide, numpyro.optim.Adam(0.01), Trace_ELBO())
    result = svi.run(jax.random.key(0), steps, X, Y, progress_bar=False)
    median = guide.median(result.params)
    return float(median["a"]), float(median["b"])


def place(x, y) -> list[tuple[float, float]]:
    """Data to picture coordinates."""
    u = (np.asarray(x) - X_RANGE[0]) / (X_RANGE[1] - X_RANGE[0])
    v = (np.asarray(y) - Y_RANGE[0]) / (Y_RANGE[1] - Y_RANGE[0])
    return [
        (LEFT + a * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - b * (HEIGHT - TOP - BOTTOM))
        for a, b in zip(u, v, strict=True)
    ]


def path(points) -> str:
    """Points as the coordinates of an SVG polyline."""
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in points)


def line(x, y, style: str) -> str:
    """A curve as an SVG element."""
    return f'<polyline points="{path(place(x, y))}" fill="none" {style}/>'


def draw() -> str:
    """The picture as SVG text."""
    posterior = taut.fit(model, {"x": X, "y": Y}, progress=False)
    draws = posterior.draws(4000)
    grid = np.linspace(*X_RANGE, 60)
    lines = draws["a"][:, None] + draws["b"][:, None] * grid
    low, high = np.quantile(lines, [0.03, 0.97], axis=0)
    intercept, slope = stochastic_slope()
    summary = posterior.summary()
    seconds = taut.fit(model, {"x": X, "y": Y}, progress=False).history.seconds
    text = (
        f"taut: slope {summary.loc['b', 'mean']:.2f} ± {summary.loc['b', 'sd']:.2f}, "
        f"verdict {posterior.trust.verdict}, "
        f"{seconds:.2f} s once compiled"
    )
    band = (
        path(place(grid, np.minimum(high, 100)))
        + " "
        + path(reversed(place(grid, np.maximum(low, 0))))
    )
    circles = "".join(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="4.5"/>' for a, b in place(X, Y))
    ticks = "".join(
        f'<text x="{a:.0f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{t}</text>'
        for t, (a, _) in zip(range(1, 8), place(range(1, 8), [0] * 7), strict=True)
    )
    ticks += "".join(
        f'<text x="{LEFT - 8}" y="{b + 4:.0f}" text-anchor="end">{t}</text>'
        for t, (_, b) in zip(range(0, 101, 25), place([0] * 5, range(0, 101, 25)), strict=True)
    )
    title = "Seven points: taut finds the falling line, mean-field SVI as usually set a rising one"
    other = f"mean-field SVI, Adam(0.01), 10,000 steps: slope {slope:+.2f}, no warning"
    ours, theirs = "#2f6fde", "#c2452d"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"',
        ' font-family="system-ui, sans-serif" font-size="13">',
        f'<title>{title}</title><rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<g fill="#555b66">{ticks}</g>',
        f'<path d="M{LEFT} {TOP} V{HEIGHT - BOTTOM} H{WIDTH - RIGHT}" fill="none" stroke="#c5c9d1"/>',
        f'<polygon points="{band}" fill="{ours}" opacity="0.18"/>',
        line(grid, lines.mean(axis=0), f'stroke="{ours}" stroke-width="2.5"'),
        line(
            grid,
            intercept + slope * grid,
            f'stroke="{theirs}" stroke-width="2" stroke-dasharray="6 5"',
        ),
        f'<g fill="#1c2330">{circles}</g>',
        f'<text x="{LEFT}" y="20" font-weight="600" fill="{ours}">{text}</text>',
        f'<text x="{LEFT}" y="38" font-weight="600" fill="{theirs}">{other}</text></svg>',
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    Path(__file__).with_name("picture.svg").write_text(draw(), encoding="utf-8")
