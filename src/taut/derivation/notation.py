"""One formula in two notations: plain text and LaTeX."""

import abc
import math
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from typing_extensions import override

SMALL = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau "
    "upsilon phi chi psi omega"
).split()
LARGE = "Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega".split()


def _greek(name: str) -> str:
    """The sign of a letter; Unicode spells lambda without b."""
    size = "SMALL" if name.islower() else "CAPITAL"
    spelled = name.upper().replace("LAMBDA", "LAMDA")
    return unicodedata.lookup(f"GREEK {size} LETTER {spelled}")


GREEK = {name: _greek(name) for name in (*SMALL, *LARGE)}
COMMANDS = {sign: name for name, sign in GREEK.items()}
ESCAPES = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "_": r"\_", "#": r"\#", "%": r"\%",
    "&": r"\&", "$": r"\$", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "\n": " ",
}  # fmt: skip


class Formula(NamedTuple):
    """A formula as plain text and as LaTeX of math mode."""

    text: str
    latex: str


class AbstractNotation(abc.ABC):
    """How parts of formulas are written."""

    @abc.abstractmethod
    def name(self, name: str) -> str:
        """A variable."""

    @abc.abstractmethod
    def indexed(self, name: str, indices: Sequence[str]) -> str:
        """An element of a variable; the name is already written in this notation."""

    @abc.abstractmethod
    def mean(self, inner: str) -> str:
        """Expectation under q."""

    @abc.abstractmethod
    def function(self, name: str, *args: str) -> str:
        """A function such as log, applied."""

    @abc.abstractmethod
    def power(self, base: str, exponent: float | int) -> str:
        """A power of a single symbol, or of something in parentheses."""

    @abc.abstractmethod
    def ratio(self, above: str, below: str) -> str:
        """A quotient of things that are single symbols or in parentheses."""

    @abc.abstractmethod
    def matmul(self, a: str, b: str) -> str:
        """A matrix product."""

    @abc.abstractmethod
    def total(self, letters: Iterable[str], body: str) -> str:
        """A sum over indices."""

    @abc.abstractmethod
    def product(self, factors: Iterable[str]) -> str:
        """Factors beside each other."""

    @abc.abstractmethod
    def scaled(self, factors: Iterable[str]) -> str:
        """Factors that are numbers or sums."""

    @abc.abstractmethod
    def number(self, value: float | int) -> str:
        """A number to six digits."""

    @abc.abstractmethod
    def words(self, words: str) -> str:
        """Words inside of a formula."""


class Plain(AbstractNotation):
    """Text that reads in a terminal."""

    @override
    def name(self, name: str) -> str:
        return name

    @override
    def indexed(self, name: str, indices: Sequence[str]) -> str:
        if not indices:
            return name
        if (
            all(len(i) == 1 and i.isalpha() for i in indices)
            or len(indices[0]) == len(indices) == 1
        ):
            return f"{name}_{''.join(indices)}"
        return f"{name}_{{{','.join(indices)}}}"

    @override
    def mean(self, inner: str) -> str:
        return f"E[{inner}]"

    @override
    def function(self, name: str, *args: str) -> str:
        if name in ("log", "log det") and (" " not in args[0] or args[0].startswith("q(")):
            return f"{name} {args[0]}"
        return f"{name}({', '.join(args)})"

    @override
    def power(self, base: str, exponent: float | int) -> str:
        return base if exponent == 1 else f"{base}^{self.number(exponent)}"

    @override
    def ratio(self, above: str, below: str) -> str:
        return f"{above} / {below}"

    @override
    def matmul(self, a: str, b: str) -> str:
        return f"{a} @ {b}"

    @override
    def total(self, letters: Iterable[str], body: str) -> str:
        letters = "".join(letters)
        return f"sum_{letters} {body}" if letters else body

    @override
    def product(self, factors: Iterable[str]) -> str:
        return " ".join(factors)

    @override
    def scaled(self, factors: Iterable[str]) -> str:
        return " * ".join(factors)

    @override
    def number(self, value: float | int) -> str:
        return plain_number(value)

    @override
    def words(self, words: str) -> str:
        return words


class Latex(AbstractNotation):
    r"""LaTeX of math mode; needs amsmath, and the macros \E and \KL."""

    @override
    def name(self, name: str) -> str:
        head, _, rest = name.partition("_")
        letter = _letter(head)
        if letter is None or rest.startswith("_"):
            return f"\\text{{{escaped(name)}}}"
        if not rest:
            return letter
        below = rest if rest.isdigit() else f"\\text{{{escaped(rest)}}}"
        return f"{{{letter}_{{{below}}}}}"

    @override
    def indexed(self, name: str, indices: Sequence[str]) -> str:
        return f"{name}_{{{','.join(indices)}}}" if indices else name

    @override
    def mean(self, inner: str) -> str:
        return f"\\E[{inner}]"

    @override
    def function(self, name: str, *args: str) -> str:
        if name == "sqrt":
            return f"\\sqrt{{{args[0]}}}"
        head = {"log": r"\log", "exp": r"\exp", "log det": r"\log\det", "max": r"\max"}.get(name)
        head = head or f"\\operatorname{{{escaped(name)}}}"
        return f"{head}({', '.join(args)})"

    @override
    def power(self, base: str, exponent: float | int) -> str:
        if exponent == 1:
            return base
        return f"{{{base}}}^{{{self.number(exponent)}}}"

    @override
    def ratio(self, above: str, below: str) -> str:
        return f"\\frac{{{_bare(above)}}}{{{_bare(below)}}}"

    @override
    def matmul(self, a: str, b: str) -> str:
        return f"{a} \\, {b}"

    @override
    def total(self, letters: Iterable[str], body: str) -> str:
        letters = ",".join(letters)
        return f"\\sum_{{{letters}}} {body}" if letters else body

    @override
    def product(self, factors: Iterable[str]) -> str:
        return r" \, ".join(factors)

    @override
    def scaled(self, factors: Iterable[str]) -> str:
        return r" \, ".join(factors)

    @override
    def number(self, value: float | int) -> str:
        if not math.isfinite(value):
            return r"\text{NaN}" if math.isnan(value) else ("-" if value < 0 else "") + r"\infty"
        text = plain_number(value)
        if "e" not in text:
            return text
        mantissa, exponent = text.split("e")
        return f"{mantissa} \\times 10^{{{int(exponent)}}}"

    @override
    def words(self, words: str) -> str:
        return f"\\text{{{escaped(words)}}}"


PLAIN, LATEX = Plain(), Latex()


def both(write: Callable[[AbstractNotation], str]) -> Formula:
    """Write a formula in both notations."""
    return Formula(write(PLAIN), write(LATEX))


def escaped(words: str) -> str:
    """Words with LaTeX's special characters escaped, for text mode."""
    return "".join(
        f"\\ensuremath{{\\{COMMANDS[c]}}}" if c in COMMANDS else ESCAPES.get(c, c) for c in words
    )


def plain_number(value: float | int) -> str:
    """Six significant digits without needless zeros."""
    value = float(value)
    text = f"{value:.6g}"
    return "0" if text == "-0" else text


def signed_sum(parts: Sequence[tuple[float, str]], notation: AbstractNotation) -> str:
    """Parts, each a sign and what follows it, as one sum."""
    if not parts:
        return notation.number(0.0)
    found = ("-" if parts[0][0] < 0 else "") + parts[0][1]
    for sign, body in parts[1:]:
        found += f" {'-' if sign < 0 else '+'} {body}"
    return found


def _letter(name: str) -> str | None:
    """A name that mathematics has a letter for."""
    if name in GREEK:
        return f"\\{name}"
    if name in COMMANDS:
        return f"\\{COMMANDS[name]}"
    return name if len(name) == 1 and name.isascii() and name.isalpha() else None


def _bare(inner: str) -> str:
    """Without the parentheses that a fraction makes needless."""
    if not (inner.startswith("(") and inner.endswith(")")):
        return inner
    depth = 0
    for c in inner[:-1]:
        depth += (c == "(") - (c == ")")
        if depth == 0:
            return inner
    return inner[1:-1]
