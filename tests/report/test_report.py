import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from taut.report.content import Graph, Node, ReportContent
from taut.report.density import mass_contours, smooth_density
from taut.report.html import render
from taut.report.numbers import decimals_for, fixed, fmt, nice_ticks, tick_labels
from taut.report.select import scalars, worst

VOID = {"meta", "br", "img", "input", "link", "hr"}
HOSTILE = "<script>alert(1)</script>\"'&"


class Page(HTMLParser):
    """Collects a page's tags and checks that they nest."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.words, self.ids = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for key, value in attrs if key == "id"]
        if tag not in VOID and not self.get_starttag_text().endswith("/>"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def count(self, tag):
        return sum(1 for name, _ in self.tags if name == tag)

    @property
    def text(self):
        return " ".join(self.words)


def drawn_numbers_are_finite(text):
    drawings = re.findall(r"<svg.*?</svg>", text, flags=re.S)
    for attribute in re.findall(
        r' (?:d|points|x|y|cx|cy|width|height)="([^"]*)"', "".join(drawings)
    ):
        assert not re.search(r"nan|inf", attribute), attribute
    return True


def one(draws, **others):
    """A report on a single site `x`."""
    return ReportContent(title="one", verdict="good", draws={"x": np.asarray(draws)}, **others)


def test_page_is_whole_and_has_every_section(content):
    text = render(content)
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>")
    assert len(page.ids) == len(set(page.ids))
    for heading in ("Summary", "Marginal densities", "Pairs", "ELBO history", "Plan", "Versions"):
        assert heading in page.text
    assert "4 of 16 are not shown" in page.text
    assert all(reason in page.text for reason in (*content.reasons, *content.advice))
    assert drawn_numbers_are_finite(text)
    assert text == render(content)


def test_nothing_is_fetched(content):
    text = render(content)
    assert not re.search(r"(?:src|href)=[\"'](?!#)", text)
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src 'none'" in text
    assert set(re.findall(r"https?://[^\s\"']+", text)) <= {"http://www.w3.org/2000/svg"}


def test_every_figure_is_labelled(content):
    drawings = [a for tag, a in Page(render(content)).tags if tag == "svg" and "role" in a]
    assert len(drawings) == 12 + 1 + 2 + 4 + 1
    assert all(a["role"] == "img" and a["aria-label"] for a in drawings)


def test_hostile_names_are_escaped(content):
    rng = np.random.default_rng(0)
    draws = {HOSTILE: rng.normal(size=(100, 2))}
    labels = [f"{HOSTILE}[0]", f"{HOSTILE}[1]"]
    hostile = replace(
        content,
        title=HOSTILE,
        verdict=HOSTILE,
        reasons=(HOSTILE,),
        advice=(HOSTILE,),
        facts={HOSTILE: HOSTILE},
        plan=HOSTILE,
        summary=pd.DataFrame({"mean": [0.0, 1.0], HOSTILE: [HOSTILE, HOSTILE]}, index=labels),
        draws=draws,
        raw_draws=draws,
        drift={labels[0]: 1.0},
        predictive={
            HOSTILE: (np.zeros(6), rng.normal(size=(30, 6))),
            HOSTILE + "2": (np.zeros(6), np.zeros((3, 7))),
        },
        graph=Graph(
            (Node(HOSTILE, "latent", HOSTILE, (HOSTILE,)), Node("y", "observed")),
            ((HOSTILE, "y"),),
            {HOSTILE: 3},
        ),
        versions={HOSTILE: HOSTILE},
    )
    text = render(hostile)
    assert "<script>alert" not in text
    page = Page(text)
    assert page.count("script") == 1
    assert {key for _, a in page.tags for key in a if key.startswith("on")} == set()


def test_only_the_two_required_fields():
    page = Page(render(ReportContent(title="empty", verdict="bad")))
    assert "bad" in page.text
    assert page.count("svg") == 0


def test_an_unknown_verdict_is_shown_as_no_verdict():
    page = Page(render(ReportContent(title="t", verdict="unheard of")))
    assert "No verdict was reached" in page.text


@pytest.mark.parametrize(
    ("draws", "words"),
    [
        (np.full(50, 2.0), "all draws equal 2"),
        (np.full((50, 2), np.nan), "no finite draws"),
        (np.array([1.0, np.nan, np.inf, *range(50)]), "2 draws not finite"),
        (np.array([3.25]), "all draws equal 3.25"),
        (np.arange(5.0), "5 draws, each a rule"),
        (np.random.default_rng(0).poisson(3, 500), "corrected 0."),
        (np.random.default_rng(0).poisson(3e6, 500), ""),
        (np.random.default_rng(0).uniform(size=500) < 0.2, "1: corrected 0."),
        (np.random.default_rng(0).normal(size=500) * 1e200, "e200"),
        (np.random.default_rng(0).normal(size=500) * 1e-200, "e-200"),
        (1e12 + np.random.default_rng(0).normal(size=500), "+99999999999"),
        (np.random.default_rng(0).standard_cauchy(500), ""),
        (np.tan(np.random.default_rng(0).uniform(0, np.pi / 2, 5000)) ** 3, ""),
        (np.zeros((50, 0)), ""),
        (np.zeros((0, 3)), "no finite draws"),
        (np.zeros((0,)), "no finite draws"),
        (np.array([1e308, -1e308] * 20), ""),
        (np.where(np.arange(900) < 890, 1.0, np.arange(900)), ""),
    ],
)
@pytest.mark.parametrize("with_q", [True, False])
@pytest.mark.filterwarnings("error")
def test_draws_of_every_sort(draws, words, with_q):
    content = one(draws, raw_draws={"x": draws} if with_q else {})
    text = render(content)
    Page(text)
    assert words in text
    assert drawn_numbers_are_finite(text)


def test_one_scalar_has_no_pairs():
    rng = np.random.default_rng(0)
    assert "Pairs" not in Page(render(one(rng.normal(size=50)))).text


@pytest.mark.parametrize("size", [2, 3])
def test_few_parameters_make_a_smaller_grid_of_pairs(size):
    rng = np.random.default_rng(0)
    text = render(one(rng.normal(size=(80, size))))
    assert f"Pairs of {', '.join(f'x[{k}]' for k in range(size))}" in text


def test_perfectly_correlated_parameters():
    x = np.random.default_rng(0).normal(size=(200, 1))
    draws = np.hstack([x, 2 * x])
    text = render(one(draws, raw_draws={"x": draws}))
    assert "corrected 1.00" in text
    assert drawn_numbers_are_finite(text)


@pytest.mark.parametrize(
    "history",
    [
        [],
        [(0, -1.0)],
        [(0, np.nan), (1, -np.inf)],
        [(k, -1e300 / (k + 1)) for k in range(5)],
        [(k, -3.0) for k in range(5)],
        [(k, -5.0 + 0.01 * k) for k in range(5000)],
        [(0, -1e9), (1, np.nan), (2, 40.0), (3, 5.0)],
        [(7, -3.0), (7, -2.0)],
    ],
)
@pytest.mark.filterwarnings("error")
def test_histories(history):
    text = render(ReportContent(title="t", verdict="good", history=history))
    Page(text)
    assert drawn_numbers_are_finite(text)
    assert len(text) < 40_000
    if any(not np.isfinite(v) for _, v in history):
        assert "finite" in text


@pytest.mark.parametrize(
    "starts",
    [[], [1.0], [1.0, 1.0], [1.0, np.nan], [-1e9, 0.0, -3.0], [-1e300, -1.0], [-np.inf, 1.0, 2.0]],
)
@pytest.mark.filterwarnings("error")
def test_starts(starts):
    text = render(ReportContent(title="t", verdict="good", starts=starts))
    Page(text)
    assert drawn_numbers_are_finite(text)


def replicates(shape=(20,), n=50):
    return np.random.default_rng(1).normal(size=(n, *shape))


@pytest.mark.parametrize(
    ("observed", "replicated", "words"),
    [
        (np.zeros(20), replicates(), ""),
        (replicates()[0], replicates(), "observed values lie in their 90% predictive interval"),
        (replicates()[0].reshape(4, 5), replicates((4, 5)), "predictive interval"),
        (np.array(1.0), replicates(()), "Rules: observed values"),
        (
            np.where(np.arange(20) < 3, np.nan, 0.5),
            replicates(),
            "3 observed values are not finite",
        ),
        (np.full(20, np.nan), replicates(), "no finite values"),
        (
            replicates()[0],
            np.where(np.arange(50)[:, None] < 2, np.nan, replicates()),
            "2 of 50 replicates",
        ),
        (np.zeros(20), np.zeros((50, 20)), ""),
        (np.zeros(20), replicates(n=1), ""),
        (np.zeros(20), replicates((19,)), "cannot be compared"),
        (np.zeros(0), np.zeros((50, 0)), "no values"),
        (np.arange(20) % 2 == 0, replicates() > 0, "share of the values"),
        (np.arange(20) % 4, np.abs(replicates() * 3).astype(int), "share of the values"),
        (replicates()[0] * 1e250, replicates() * 1e250, "e250"),
        (replicates()[0], replicates() * 1e9, ""),
        (replicates((50_000,), 1)[0], replicates((50_000,), 25), "One in 3 of the 50000"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_predictive_checks(observed, replicated, words):
    content = ReportContent(title="t", verdict="good", predictive={"y": (observed, replicated)})
    text = render(content)
    assert words in Page(text).text + text
    assert drawn_numbers_are_finite(text)


def test_only_some_of_many_sites_are_checked():
    sites = {f"y{k}": (np.zeros(20), replicates()) for k in range(9)}
    page = Page(render(ReportContent(title="t", verdict="good", predictive=sites)))
    assert "Not shown: y6, y7, y8." in page.text


def big(size):
    rng = np.random.default_rng(3)
    root = rng.normal(size=(size, size)) / np.sqrt(size)
    draws = {"theta": rng.normal(size=(2000, size)) @ root}
    labels = [f"theta[{k}]" for k in range(size)]
    table = pd.DataFrame(
        {
            "mean": draws["theta"].mean(axis=0),
            "sd": draws["theta"].std(axis=0),
            **{name: rng.normal(size=size) for name in ("hdi_3%", "hdi_97%", "shift", "khat")},
            "ess_bulk": rng.uniform(100, 4000, size),
            "ess_tail": rng.uniform(100, 4000, size),
            "r_hat": rng.uniform(1, 1.01, size),
        },
        index=labels,
    )
    drift = dict(zip(labels, rng.normal(size=size), strict=True))
    raw = {"theta": draws["theta"] * 0.9}
    return {"draws": draws, "raw_draws": raw, "summary": table, "drift": drift}


def test_size_of_a_model_with_200_parameters(content):
    text = render(replace(content, **big(200)))
    assert len(text.encode()) < 300 * 1024
    assert Page(text).count("tr") > 200


def test_very_long_summaries_are_cut(content):
    text = render(replace(content, **big(1200)))
    assert "500 of 1200 parameters are shown" in text
    assert len(text.encode()) < 400 * 1024


def test_nan_in_the_summary():
    table = pd.DataFrame(
        {"mean": [np.nan, 1.0], "sd": [np.inf, 0.0], "ess_bulk": [np.nan, 3], "note": [None, "ok"]},
        index=["x[0]", "x[1]"],
    )
    page = Page(render(one(np.zeros((5, 2)), summary=table, drift={"x[0]": np.nan})))
    assert "NaN" in page.text
    assert "inf" in page.text


def test_worst_parameters_come_first_and_nan_is_the_worst():
    drift = {"x[0]": 0.1, "x[1]": -0.5, "x[2]": np.nan}
    chosen, total = worst(one(np.zeros((5, 4)), drift=drift), 3)
    assert [s.label for s in chosen] == ["x[2]", "x[1]", "x[0]"]
    assert total == 4


def test_labels_follow_the_summary_when_it_fits():
    table = pd.DataFrame({"mean": [0.0, 1.0]}, index=["x[Choate]", "x[Andover]"])
    found = scalars(one(np.arange(6.0).reshape(3, 2), summary=table))
    assert [s.label for s in found] == ["x[Choate]", "x[Andover]"]
    assert found[1].of({"x": np.arange(6.0).reshape(3, 2)}).tolist() == [1.0, 3.0, 5.0]


def test_a_positive_density_does_not_leak_and_integrates_to_one():
    draws = np.random.default_rng(0).exponential(size=4000)
    grid = np.linspace(-2, 12, 1401)
    density = smooth_density(draws, grid)
    assert np.all(density[grid < 0] == 0)
    assert np.trapezoid(density, grid) == pytest.approx(1, abs=0.01)
    inner = (grid > 0.05) & (grid < 4)
    assert np.abs(density - np.exp(-np.abs(grid)))[inner].max() < 0.08


@pytest.mark.parametrize("rho", [0.0, 0.99])
def test_contours_enclose_the_mass_they_name(rho):
    rng = np.random.default_rng(5)
    root = np.array([[1.0, 0.0], [rho, np.sqrt(1 - rho**2)]])
    draws = rng.normal(size=(8000, 2)) @ root.T * [1.0, 1e6]
    for mass, lines in zip((0.5, 0.9), mass_contours(draws, (0.5, 0.9)), strict=True):
        line = max(lines, key=len)
        white = np.linalg.solve(root, (line / [1.0, 1e6]).T)
        radius = np.hypot(*white).mean()
        assert radius == pytest.approx(np.sqrt(-2 * np.log(1 - mass)), rel=0.06)
        assert np.allclose(line[0], line[-1])


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (3.14159, "3.14"), (-0.5, "-0.5"), (123456, "123456"), (1.2e10, "1.2e10"),
     (1e-7, "1e-7"), (np.nan, "NaN"), (-np.inf, "-inf")],
)  # fmt: skip
def test_numbers_as_text(value, text):
    assert fmt(value) == text


def test_decimals_follow_the_sd():
    assert fixed(4.39712, decimals_for(3.318)) == "4.40"
    assert fixed(-8.8851, decimals_for(0.01782)) == "-8.8851"
    assert fixed(-0.0001, 2) == "0.00"
    assert decimals_for(0.0) is None


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (-3.2, 8.7), (1e9, 1e9 + 3), (1e-12, 4e-12), (-1e200, 1e200), (5, 5)]
)
def test_ticks_are_inside_distinct_and_few(low, high):
    ticks = nice_ticks(low, high, 5)
    labels, _ = tick_labels(ticks)
    assert all(low - 1e-9 * abs(low) <= t <= high + 1e-9 * abs(high) for t in ticks)
    assert 1 <= len(ticks) <= 9
    assert len(set(labels)) == len(ticks)
    assert max(map(len, labels)) <= 9
