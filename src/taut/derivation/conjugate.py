"""Updates of factors whose natural parameter is a gradient that can be read off the terms."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from taut.derivation.notation import LATEX, PLAIN, AbstractNotation, Formula, both
from taut.derivation.records import Parameter
from taut.derivation.terms import Writer
from taut.expectation.factor import AbstractDiscrete
from taut.expectation.terms import Entry, IndexRef, Power, Term, Terms
from taut.expectation.transform import Compiled
from taut.families import Beta, Categorical, Chain, Dirichlet, Gamma, Grid, InverseGamma, Wishart

LOG, ONE, INVERSE, COLOG = Power(logs=1), Power(power=1.0), Power(power=-1.0), Power(cologs=1)
MAX_PARTS = 24  # summands of one equation


class Rule(NamedTuple):
    """A parameter as offset + factor x gradient.

    Attributes:
        symbol: a name that both notations know.
        statistic: the power whose mean the gradient is with respect to; None for probabilities.
        at: position among the natural parameters.
        offset: what is added; the size of the matrix is added too where ``by_size``.
        scale: what the gradient is multiplied by.
        by_size: whether the offset grows with the size of a matrix.
        is_inverse: whether the symbol stands for an inverse matrix.
    """

    symbol: str
    statistic: Power | None
    at: int
    offset: float
    scale: float
    by_size: bool = False
    is_inverse: bool = False


RULES: dict[type, tuple[Rule, ...]] = {
    Gamma: (Rule("a", LOG, 0, 1.0, 1.0), Rule("b", ONE, 1, 0.0, -1.0)),
    InverseGamma: (Rule("a", LOG, 0, -1.0, -1.0), Rule("b", INVERSE, 1, 0.0, -1.0)),
    Beta: (Rule("a", LOG, 0, 1.0, 1.0), Rule("b", COLOG, 1, 1.0, 1.0)),
    Dirichlet: (Rule("alpha", LOG, 0, 1.0, 1.0),),
    Wishart: (
        Rule("nu", LOG, 0, 1.0, 2.0, by_size=True),
        Rule("W", ONE, 1, 0.0, -2.0, is_inverse=True),
    ),
    Categorical: (Rule("r", None, 0, 0.0, 1.0),),
    Grid: (Rule("q", None, 0, 0.0, 1.0),),
}
WHY = {
    Gamma: "{x} enters every site through log {x} and {x} only, so the gamma is conjugate",
    InverseGamma: "{x} enters every site through log {x} and 1/{x} only, so the inverse gamma is conjugate",
    Beta: "{x} enters every site through log {x} and log(1 - {x}) only, so the beta is conjugate",
    Dirichlet: "{x} enters every site through log {x} only, so the Dirichlet is conjugate",
    Wishart: "{x} enters every site through log det {x} and {x} only, so the Wishart is conjugate",
    Categorical: "{x} is discrete: every value is enumerated, none is sampled",
    Chain: "{x} is a sequence of discrete values: all paths are summed by forward-backward",
    Grid: "free form: any density of {x}, tabulated on points",
}


def parameters(
    name: str, q: Mapping[str, Any], sites: Mapping[str, Compiled], writers: Mapping[str, Writer],
    terms: Mapping[str, Terms],
) -> tuple[Parameter, ...]:  # fmt: skip
    """The parameters of one factor that is no Gaussian block.

    Args:
        name: its key in q.
        q: all factors, at the optimum.
        sites: the parts of each site that depend on it, its own prior first.
        writers: for each site.
        terms: the terms of each of those sites, as they are written.
    """
    factor = q[name]
    messages = {
        s: factor.gradient(jax.grad(lambda f, c=c: c({**q, name: f}))(factor))
        for s, c in sites.items()
    }
    if isinstance(factor, Chain):
        return _of_chain(name, factor, messages)
    return tuple(
        _parameter(name, rule, factor, messages, writers, terms) for rule in RULES[type(factor)]
    )


def _of_chain(name: str, factor: Chain, messages: Mapping[str, Any]) -> tuple[Parameter, ...]:
    """Log potentials of a chain, of elements and of neighbours."""
    heads = (("t", "i"),), (("t", "i"), ("t+1", "j"))

    def event(at: int, n: AbstractNotation) -> str:
        pairs = [f"{n.indexed(n.name(name), [t])} = {value}" for t, value in heads[at]]
        return f"q({', '.join(pairs)})"

    def symbol(at: int, n: AbstractNotation) -> str:
        letters = [value for _, value in heads[at]]
        return n.indexed(n.name("b" if at else "a"), ["t", *letters])

    return tuple(
        Parameter(
            both(lambda n, at=at: symbol(at, n)), both(lambda n, at=at: gradient(event(at, n), n)),
            (), np.asarray(factor.natural[at]), 0.0,
            {s: np.asarray(m[at]) for s, m in messages.items()},
        )
        for at in (0, 1)
    )  # fmt: skip


def _parameter(
    name: str, rule: Rule, factor: Any, messages: Mapping[str, Any],
    writers: Mapping[str, Writer], terms: Mapping[str, Terms],
) -> Parameter:  # fmt: skip
    offset = rule.offset + (factor.shape[-1] if rule.by_size else 0)
    value = offset + rule.scale * np.asarray(factor.natural[rule.at])
    sent = {s: rule.scale * np.asarray(m[rule.at]) for s, m in messages.items()}
    if rule.statistic is None:  # known up to a constant per element
        axis = -1 if isinstance(factor, AbstractDiscrete) else 0
        value = value - _log_sum(value, axis)
        total = sum(sent.values(), np.zeros(value.shape))
        sent["normalisation"] = np.broadcast_to(-_log_sum(total, axis), value.shape)
    writer = next(iter(writers.values()))
    free = letters_of(name, rule, factor, writer, terms)
    parts = [
        part for site, these in terms.items()
        for part in _written(name, rule, writers[site], these, free)
    ]  # fmt: skip
    if offset:
        parts = [(1.0, both(lambda n: n.number(offset))), *parts]
    many = len(parts) > MAX_PARTS
    written = () if many or isinstance(factor, Grid) else _signed(parts, rule)
    return Parameter(
        both(lambda n: _symbol(name, rule, free, n)),
        both(lambda n: _rule(name, rule, offset, free, n)),
        written, np.asarray(value), offset, {s: np.asarray(m) for s, m in sent.items()},
    )  # fmt: skip


def _log_sum(x: np.ndarray, axis: int) -> np.ndarray:
    """Log of the sum of exponentials over an axis, kept."""
    top = np.max(x, axis=axis, keepdims=True)
    return top + np.log(np.sum(np.exp(x - top), axis=axis, keepdims=True))


def letters_of(
    name: str, rule: Rule, factor: Any, writer: Writer, terms: Mapping[str, Terms]
) -> tuple[str, ...]:
    """Letters of the parameter's dimensions; that of a discrete latent's value comes last."""
    latent = writer.symbols.letters_of(name, len(factor.shape))
    if rule.statistic is not None:
        return tuple(latent[: np.ndim(np.asarray(factor.natural[rule.at]))])
    if not isinstance(factor, AbstractDiscrete):
        return tuple(latent)
    for these in terms.values():
        for term in these:
            for entry, axis in term.onehots:
                if entry.latent == name and (found := _shared_letter(term, axis, writer)):
                    return (*latent, found if found not in latent else "e")
    return (*latent, writer.symbols.spare(latent))


def _shared_letter(term: Term, axis: int, writer: Writer) -> str | None:
    """The letter of a dimension of another latent that the values run over."""
    for entry in (*term.linear, *(e for e, _ in term.powers)):
        if axis in entry.index:
            names = writer.symbols.letters_of(entry.latent, len(entry.index))
            return names[entry.index.index(axis)]
    return None


# --- coefficients ---------------------------------------------------------------------------------


def _written(
    name: str, rule: Rule, writer: Writer, terms: Terms, free: tuple[str, ...]
) -> list[tuple[float, Formula]]:
    """The gradient of a site with respect to one mean parameter, summand by summand."""
    found = []
    for term in terms:
        for rest, entry, axes in _stripped(term, name, rule):
            bound, conditions = bind((*entry.index, *axes), free)
            found.append(writer.summand(rest, bound, conditions, rule.scale))
    return found


def _stripped(term: Term, name: str, rule: Rule) -> list[tuple[Term, Entry, tuple[int, ...]]]:
    """The term without each of its atoms that has the statistic."""
    if rule.statistic is not None:
        return [
            (_without(term, powers=at), e, ())
            for at, (e, p) in enumerate(term.powers) if e.latent == name and p == rule.statistic
        ]  # fmt: skip
    return [
        (_without(term, onehots=at), e, (g,))
        for at, (e, g) in enumerate(term.onehots) if e.latent == name
    ]  # fmt: skip


def _without(term: Term, **atom: int) -> Term:
    """The term without one atom."""
    ((kind, at),) = atom.items()
    kept = {k: getattr(term, k) for k in ("linear", "powers", "onehots")}
    kept[kind] = (*kept[kind][:at], *kept[kind][at + 1 :])
    return Term(term.operands, term.exponents, term.functions, term.scale, **kept)


def bind(
    index: tuple[int | IndexRef, ...], letters: tuple[str, ...]
) -> tuple[dict[int, str], tuple[tuple[int | IndexRef, str], ...]]:
    """Letters for axes that become free, and conditions where an element is picked otherwise."""
    free: dict[int, str] = {}
    conditions: list[tuple[int | IndexRef, str]] = []
    for i, letter in zip(index, letters, strict=False):
        if isinstance(i, int) and i not in free:
            free[i] = letter
        else:
            conditions.append((i, letter))
    return free, tuple(conditions)


# --- formulas -------------------------------------------------------------------------------------


def _signed(parts: list[tuple[float, Formula]], rule: Rule) -> tuple[Formula, ...]:
    found = [
        Formula(*(f"{'-' if sign < 0 else '+' if k else ''} {x}".strip() for x in body))
        for k, (sign, body) in enumerate(parts)
    ]
    if rule.statistic is None:
        found.append(both(lambda n: f"+ {n.words('const')}"))
    return tuple(found)


def _symbol(name: str, rule: Rule, free: tuple[str, ...], n: AbstractNotation) -> str:
    if rule.statistic is None and rule.symbol == "r":
        return f"{n.function('log', n.name('q') + f'({n.indexed(n.name(name), free[:-1])} = {free[-1]})')}"
    if rule.statistic is None:
        return n.function("log", f"q({n.indexed(n.name(name), free)})")
    base = n.name(rule.symbol)
    if rule.is_inverse:
        base = "W^-1" if n is PLAIN else "{W^{-1}}"
    return n.indexed(base, free)


def _rule(name: str, rule: Rule, offset: float, free: tuple[str, ...], n: AbstractNotation) -> str:
    x = n.indexed(n.name(name), free if rule.statistic is not None else free[:-1])
    statistics = {
        LOG: n.function("log det" if rule.by_size else "log", x), ONE: x,
        INVERSE: n.power(x, -1.0) if n is PLAIN else f"{{{x}}}^{{-1}}",
        COLOG: n.function("log", f"1 - {x}"),
    }  # fmt: skip
    if rule.statistic is None:
        inner = f"q({x} = {free[-1]})" if rule.symbol == "r" else f"q({n.name(name)})"
        return f"{gradient(inner, n)} + {n.words('const')}"
    sign = "-" if rule.scale < 0 else "+" if offset else ""
    size = n.number(abs(rule.scale)) + " " if abs(rule.scale) != 1 else ""
    lead = n.number(offset) + " " if offset else ""
    gap = " " if lead else ""
    return f"{lead}{sign}{gap}{size}{gradient(n.mean(statistics[rule.statistic]), n)}"


def gradient(of: str, n: AbstractNotation) -> str:
    """The derivative of the expected log joint."""
    return f"\\frac{{\\partial F}}{{\\partial {of}}}" if n is LATEX else f"dF/d{of}"
