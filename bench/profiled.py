"""Where the time of a network goes: the share of our operators, and what the rest costs."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from torch.profiler import ProfilerActivity, profile, record_function

from bench.candidates import Candidate

OURS = "sepwise::"
CALL, BETWEEN = "one call of the network", "between operators"
SECONDS, MOST = 0.3, 20  # calls of the network are followed so long, and so many at most
SHOWN = 5


def shares(candidate: Candidate) -> dict[str, Any]:
    """{"share": of our operators in the time of a call, "others": [[operator, share], ...], the costliest first}.

    The time of an operator is its own, without that of the operators which it calls; what passes outside of all of them
    is called "between operators". Following takes time as well, some microseconds for each operator.
    """
    candidate.settle()
    candidate.run()
    with profile(activities=[ProfilerActivity.CPU]) as followed:
        start, calls = time.perf_counter(), 0
        while calls == 0 or (calls < MOST and time.perf_counter() - start < SECONDS):
            with record_function(CALL):
                candidate.run()
            calls += 1
    own = Counter[str]()
    for event in followed.key_averages():
        own[BETWEEN if event.key == CALL else event.key] += event.self_cpu_time_total
    total = sum(own.values())
    ours = sum(taken for name, taken in own.items() if name.startswith(OURS))
    others = Counter({name: taken for name, taken in own.items() if not name.startswith(OURS)})
    return {
        "share": round(ours / total, 4),
        "others": [[name, round(taken / total, 4)] for name, taken in others.most_common(SHOWN)],
    }
