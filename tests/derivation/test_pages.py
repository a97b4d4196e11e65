"""The text, the LaTeX and the notebook form."""

import re

import derived_models as models
import pytest

from taut.derivation import derive
from taut.derivation.notation import LATEX, PLAIN, escaped


@pytest.fixture(scope="module")
def regression():
    return derive(models.regression, models.regression_data())


@pytest.fixture(scope="module")
def awkward():
    """A model whose names need escapes, with quadrature."""
    return derive(models.logistic, models.logistic_data())


def test_text_shows_the_model_and_its_updates(regression):
    page = str(regression)
    for line in (
        "tau ~ Gamma(2, 1)",
        "w ~ Normal(0, 2)  [2]",
        "y ~ Normal(x @ w, 1 / sqrt(tau))  [12]  in rows (12)  observed",
        "q(tau, w) = q(tau) q(w)",
        "a = 1 + dF/dE[log tau]",
        "V^-1 = -2 dF/dV",
        "V^-1[w_i, w_i] += 0.25",
        "E[log p(tau)]",
        "- KL(q(w) || p(w | parents))",
    ):
        assert line in page
    assert max(map(len, page.splitlines())) <= 160


def test_text_names_the_integral(awkward):
    page = str(awkward)
    assert "quadrature (dimension 1" in page
    assert "no conjugate family" in page
    assert "Bernoulli(logits = " in page


def test_graph_and_html(regression):
    assert {n.name for n in regression.graph.nodes} == {"tau", "w", "y"}
    page = regression._repr_html_()
    assert "<svg" in page
    assert "q(tau) q(w)" in page
    assert "||" in page


@pytest.mark.parametrize("form", ["page", "document", "notebook"])
@pytest.mark.parametrize("name", ["regression", "awkward"])
def test_latex_is_balanced(request, name, form):
    d = request.getfixturevalue(name)
    source = {
        "page": d.latex(),
        "document": d.latex(standalone=True),
        "notebook": d._repr_latex_(),
    }[form]
    assert complaints(source) == []
    if form == "notebook":
        assert r"\E[" not in source
        assert source.startswith("$$")
        assert source.endswith("$$")


def test_awkward_names_are_escaped(awkward):
    source = awkward.latex()
    assert r"\text{slope\_\{1\} \& more}" in source
    assert r"rows\_\% (4)" in source
    assert r"\text{y\#}" in source


@pytest.mark.parametrize(
    ("name", "latex"),
    [
        ("tau", r"\tau"),
        ("w", "w"),
        ("mu_0", r"{\mu_{0}}"),
        ("sigma_obs", r"{\sigma_{\text{obs}}}"),
        ("log_x", r"\text{log\_x}"),
        ("a^b", r"\text{a\textasciicircum{}b}"),
        ("\N{GREEK SMALL LETTER BETA}", r"\beta"),
    ],
)
def test_names(name, latex):
    assert LATEX.name(name) == latex
    assert complaints(LATEX.indexed(latex, ["i", "0"])) == []
    assert PLAIN.name(name) == name


def test_escapes():
    assert escaped(r"\{_}#%&$~^") == (
        r"\textbackslash{}\{\_\}\#\%\&\$\textasciitilde{}\textasciicircum{}"
    )


def complaints(source: str) -> list[str]:
    """What keeps LaTeX from compiling: braces, environments, columns, bare special characters."""
    found = []
    bare = re.sub(r"\\[\\{}_#%&$]", "", re.sub(r"^% .*$", "", source, flags=re.M))
    depth = 0
    for c in bare:
        depth += (c == "{") - (c == "}")
        if depth < 0:
            return ["a brace closes that was not opened"]
    if depth:
        found.append("a brace stays open")
    if re.findall(r"\\begin\{(.*?)\}", source) != re.findall(r"\\end\{(.*?)\}", source)[::-1]:
        found.append("environments do not match")
    for line in source.split(r"\\" + "\n"):
        columns = len(re.findall(r"(?<!\\)&", re.sub(r"^% .*$", "", line, flags=re.M)))
        if columns > 1:
            found.append(f"{columns} columns in {line}")
    for text in re.findall(r"\\text\{((?:[^{}\\]|\\.|\{\})*)\}", source):
        if re.search(r"(?<!\\)[_#%&$^]", text):
            found.append(f"a bare special character in {text}")
    if "#" in bare or "%" in bare:
        found.append("a bare # or %")
    if re.search(r"_\{[^{}]*\}_|\^\{[^{}]*\}\^", source):
        found.append("a double subscript or superscript")
    return found


@pytest.mark.parametrize(
    ("source", "count"),
    [("{a}", 0), ("{a", 1), (r"\{", 0), ("x_{1}_{2}", 1), (r"\text{a_b}", 1), ("a & b & c", 1)],
)
def test_the_rule_itself(source, count):
    assert len(complaints(source)) == count
