"""A network in the forms in which stock PyTorch runs it: the fastest of them is its fair time."""

from __future__ import annotations

import warnings
from collections.abc import Callable

from torch import Tensor, nn

from ..graph.export import export
from ..graph.fold import fold_norms
from ..graph.network import trace
from ..measure import stock_forms
from ..nn import FactoredConv
from .parallel import merge_parallel


def stock_calls(network: nn.Module, x: Tensor) -> dict[str, Callable[[], object]]:
    """The eager forms of a network in stock operations, as it is and with its normalizations folded.

    With the latter, parallel convolutions that are added up become one as well, as the authors of such networks run
    them. Layers of ours are no stock operations, so a network that holds some is exported first.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own remark on copies of programs it exported
        if any(isinstance(module, FactoredConv) for module in network.modules()):
            network = export(network, x).module(check_guards=False)
        forms = stock_forms(network, x)
        followed = trace(network, x)
        written = [len(step(followed)) for step in (fold_norms, merge_parallel, fold_norms)]
        if any(written):
            folded = stock_forms(followed.graph, x)
            forms |= {form.replace("eager", "folded"): run for form, run in folded.items()}
    return forms
