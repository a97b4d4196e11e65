"""The page in a real browser: nothing fails, nothing is fetched, tables sort, figures are there."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from taut.report.content import Graph, Node, ReportContent
from taut.report.html import render

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
BROWSER = next(
    filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium in PATH")


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as play:
        started = play.chromium.launch(
            executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"]
        )
        yield started
        started.close()


@pytest.fixture
def visit(browser, tmp_path):
    """Opens a report and checks at the end that the page was quiet and asked for nothing."""
    troubles, pages = [], []

    def heard(message):
        troubles.append(message.text)

    def asked(request):
        if not request.url.startswith("file://"):
            troubles.append(request.url)

    def open_page(content, scheme="light", width=1180):
        file = tmp_path / "report.html"
        file.write_text(render(content), encoding="utf-8")
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("console", heard)
        page.on("request", asked)
        page.on("dialog", lambda dialog: (troubles.append(dialog.message), dialog.dismiss()))
        page.goto(file.as_uri())
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert troubles == []


def column(page, k):
    return page.eval_on_selector_all(
        "#summary tbody tr", f"rows => rows.map(row => row.cells[{k}].textContent)"
    )


def check_figures(page):
    sizes = page.eval_on_selector_all(
        "figure svg[role=img]",
        "all => all.map(e => [e.getBoundingClientRect().width, e.getBoundingClientRect().height])",
    )
    assert all(width > 100 and height > 40 for width, height in sizes)
    return len(sizes)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1180, 390])
def test_the_whole_page(visit, content, scheme, width, tmp_path):
    page = visit(content, scheme, width)
    assert page.locator("#verdict .word").inner_text().strip().endswith("Verdict: usable")
    assert page.locator("#verdict").is_visible()
    assert page.locator("#summary tbody tr").count() == len(content.summary)
    assert check_figures(page) == 20
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    picture = tmp_path / f"{scheme}-{width}.png"
    page.screenshot(path=picture, full_page=True)
    assert picture.stat().st_size > 20_000


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(visit, content, scheme):
    page = visit(content, scheme)
    ratios = page.evaluate(
        """() => {
          const probe = document.createElement('span');
          document.body.appendChild(probe);
          const rgb = name => {
            probe.style.color = `var(--${name})`;
            return getComputedStyle(probe).color.match(/[\\d.]+/g).slice(0, 3).map(Number);
          };
          const lum = c => c.map(v => v / 255)
            .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
            .reduce((s, v, k) => s + v * [0.2126, 0.7152, 0.0722][k], 0);
          const ratio = (a, b) => {
            const [x, y] = [lum(rgb(a)), lum(rgb(b))].sort((p, q) => q - p);
            return (x + 0.05) / (y + 0.05);
          };
          return [['ink', 'paper'], ['soft', 'paper'], ['soft', 'card'], ['link', 'paper'],
            ['main', 'paper'], ['q', 'paper'], ['good', 'good-bg'], ['usable', 'usable-bg'],
            ['bad', 'bad-bg'], ['ink', 'line']].map(([a, b]) => [a, b, ratio(a, b)]);
        }"""
    )
    assert [row for row in ratios if row[2] < 4.5] == []


def test_sorting(visit, content):
    page = visit(content)
    before = column(page, 0)
    head = page.locator("#summary thead th").nth(1)
    head.locator("button").click()
    down = [float(v) for v in column(page, 1)]
    assert down == sorted(down, reverse=True)
    assert head.get_attribute("aria-sort") == "descending"
    head.locator("button").click()
    up = [float(v) for v in column(page, 1)]
    assert up == sorted(up)
    assert head.get_attribute("aria-sort") == "ascending"
    page.locator("#summary thead button", has_text="shift").click()
    assert head.get_attribute("aria-sort") == "none"
    sizes = [abs(float(v)) for v in column(page, 5)]
    assert sizes == sorted(sizes, reverse=True)
    page.locator("#summary thead button", has_text="parameter").click()
    assert column(page, 0) == before


def test_long_tables_fold_and_nan_sorts_last(visit, content):
    values = np.where(np.arange(60) % 7 == 0, np.nan, np.arange(60.0))
    table = pd.DataFrame({"mean": values, "sd": 1.0}, index=[f"x[{k}]" for k in range(60)])
    page = visit(replace(content, summary=table, drift={}))
    rows = page.locator("#summary tbody tr")
    assert rows.count() == 60
    assert page.locator("#summary tbody tr:visible").count() == 20
    page.locator("#summary thead button", has_text="mean").click()
    assert column(page, 1)[:2] == ["59.00", "58.00"]
    assert column(page, 1)[-1] == "NaN"
    assert page.locator("#summary tbody tr:visible").count() == 20
    page.locator("#summary thead button", has_text="mean").click()
    assert column(page, 1)[:2] == ["1.00", "2.00"]
    assert column(page, 1)[-1] == "NaN"
    page.locator("#more").click()
    assert page.locator("#summary tbody tr:visible").count() == 60
    page.locator("#more").click()
    assert page.locator("#summary tbody tr:visible").count() == 20


def test_curves_are_read_out_under_the_pointer(visit, content):
    page = visit(content)
    drawing = page.locator("#history svg[role=img]").first
    drawing.scroll_into_view_if_needed()
    box = drawing.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.12, box["y"] + box["height"] * 0.5)
    words = page.locator("#history .tip").first.inner_text()
    iteration, gap = (float(part.split()[-1]) for part in words.split("\u00b7"))
    expected = np.interp(iteration, *zip(*content.history, strict=True)) - content.history[-1][1]
    assert gap == pytest.approx(expected, rel=0.15)
    page.mouse.move(1, 1)
    assert not page.locator("#history .tip").first.is_visible()


def test_awkward_content(visit):
    rng = np.random.default_rng(0)
    hostile = "<script>alert(1)</script>"
    draws = {
        hostile: np.full(50, 2.0),
        "nan": np.full(50, np.nan),
        "count": rng.poisson(4, 50),
        "huge": 1e200 * rng.normal(size=50),
        "offset": 1e9 + rng.normal(size=50),
        "a_name_that_goes_on_for_much_longer_than_it_should": rng.normal(size=50),
    }
    page = visit(
        ReportContent(
            title=hostile,
            verdict="bad",
            reasons=("word" * 60,),
            draws=draws,
            history=[(0, -np.inf), (1, -1e12), (2, -3.0)],
            predictive={"one": (np.array(1.0), rng.normal(size=50))},
            graph=Graph((Node(hostile, "latent"), Node("y", "observed")), ((hostile, "y"),)),
        ),
        width=390,
    )
    assert page.locator("#verdict .word").inner_text().strip().endswith("Verdict: bad")
    assert hostile in page.locator("h1").inner_text()
    assert check_figures(page) == 10
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_without_script_the_table_is_whole(browser, content, tmp_path):
    file = tmp_path / "report.html"
    table = pd.DataFrame({"mean": np.arange(60.0)}, index=[f"x[{k}]" for k in range(60)])
    file.write_text(render(replace(content, summary=table)), encoding="utf-8")
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(file.as_uri())
    assert page.locator("#summary tbody tr:visible").count() == 60
    assert not page.locator("#more").is_visible()
    context.close()
