"""Parts of ``benchmarks.robustness``: a federation in one process, attacks, rules, a store of outcomes."""
