"""A round's aggregate, hidden blocks still sealed: its updates' mean, or what they add to a model."""

from secagg.aggregate.form import AggregateFile, Shares, aggregate_bytes
from secagg.aggregate.opening import Onto, open_aggregate
from secagg.aggregate.summing import (
    Additions,
    WeightedUpdates,
    appearing,
    lay_out,
    mean_error_bound,
    write_aggregate,
    write_sums,
)

__all__ = [
    "Additions",
    "AggregateFile",
    "Onto",
    "Shares",
    "WeightedUpdates",
    "aggregate_bytes",
    "appearing",
    "lay_out",
    "mean_error_bound",
    "open_aggregate",
    "write_aggregate",
    "write_sums",
]
