"""Where to prune when errors add up. Law: of the widths within a budget of work, those whose errors sum to least.

Scores that are errors (`Scores.additive`) compare between groups, so the search that chooses widths for a time
(`plan.knapsack`) chooses them for a number of multiply-accumulates: these are the price instead of milliseconds.
"""

from __future__ import annotations

from onnxprune.cost import cost
from onnxprune.errors import PlanError
from onnxprune.labels import Ids
from onnxprune.latency import Price, terms_of, whole_region
from onnxprune.plan.choose import Chooser
from onnxprune.plan.knapsack import Search, within
from onnxprune.plan.levels import choices_of, choosers_of, levels_of

WIDTHS = 64  # tried of one group


def least_error(chooser: Chooser, macs: float) -> list[tuple[Ids, str]]:
    """What every group loses, and a note, so that at most a share `macs` of the work is left.

    Raises:
        PlanError: The limits leave more work than that.
    """
    dependencies, limits = chooser.dependencies, chooser.limits
    terms = terms_of(dependencies, whole_region(dependencies.model.proto.graph), limits.align)
    price = Price(terms, terms.macs)
    levels = levels_of(choosers_of(dependencies, chooser.scores, limits, finer=limits.finer), WIDTHS)
    whole = Search.of(price, choices_of(dependencies, terms, levels, additive=True))
    fixed = cost(dependencies).macs - float(price.total(terms.dense))  # of layers that lie outside the price
    found = within(whole, macs * cost(dependencies).macs - fixed)
    if found is None:
        raise PlanError("--macs cannot be met under the limits given", remedy="relax --max-ratio, --skip or --align")
    pairs = zip(levels, found.chosen, strict=True)
    return [(options[c].removed, options[c].note) for options, c in pairs]
