"""Where gradients are dear, even weights stand in for chains: they must not call a wrong q good."""

import pytest
from wrong_on_purpose import CASES, certified, wrong_fits

from taut import ladder

SEEDS = range(4)


@pytest.mark.stat
@pytest.mark.parametrize("name", [n for n in CASES if n.startswith("gaussian")])
def test_even_weights_see_what_chains_see(name, monkeypatch):
    """The weights are exact for a right q, so no false alarm; a shift of 0.5 sd is measured to 1%."""
    monkeypatch.setattr(ladder, "DEAR", 0)
    case = CASES[name]()
    for seed in SEEDS:
        right = certified(case, case.q, seed)
        assert right.findings.drift_from == "weights"
        assert right.verdict.word == "good"
        for fault, q in wrong_fits(name, case):
            wrong = certified(case, q, seed)
            assert wrong.verdict.word != "good", fault
            if fault.startswith("shifted"):
                assert wrong.findings.drift_from == "weights"
                assert wrong.findings.drift == pytest.approx(0.5, abs=0.01)
