"""What follows a round: another one, or the federation's end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from secagg.errors import Code
from secagg.plan import RoundPlan, RoundState
from secagg.rule import StatisticsRequest
from secagg.server.events import Round


@dataclass(frozen=True, slots=True, kw_only=True)
class Announce:
    """Hold round ``number``, starting from the aggregate of ``base_round`` (0: the initial model)."""

    number: int
    base_round: int


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """Hold no further round; ``reason`` is empty for an ordinary end."""

    rounds_closed: int
    last_aggregate_round: int
    reason: str


def what_follows(history: Sequence[Round], *, rounds: int, max_aborted: int) -> Announce | End:
    """What comes after these rounds, all ended, in order: another round, or the federation's end.

    The federation ends after ``rounds`` rounds with an aggregate, or after ``max_aborted`` in a row without;
    0 stands for any number of these.
    """
    closed = [r.number for r in history if r.state is RoundState.CLOSED]
    last = closed[-1] if closed else 0
    recent = history[-max_aborted:] if max_aborted else ()
    if len(closed) >= rounds:
        return End(rounds_closed=len(closed), last_aggregate_round=last, reason="")
    if recent and len(recent) == max_aborted and all(r.state is RoundState.ABORTED for r in recent):
        code = recent[-1].abort_code or Code.INTERNAL
        reason = f"{max_aborted} rounds in a row were aborted, the last with {code.value}"
        return End(rounds_closed=len(closed), last_aggregate_round=last, reason=reason)
    number = history[-1].number + 1 if history else 1
    return Announce(number=number, base_round=last)


def still_needed(
    base_round: int, plans: Mapping[int, RoundPlan], request: StatisticsRequest | None
) -> set[int]:
    """The rounds whose aggregates the next round, or who joins it, may ask for.

    The base model's; what it adds to, and so on, where aggregates do not add up from the first round on; and
    that of the model before, if updates are compared with it.

    Args:
        base_round: of the next round; 0 for the initial model.
        plans: of all rounds so far.
        request: what the rule needs to see.
    """
    earlier = plans[base_round].base_round if base_round and request and request.references > 1 else 0
    needed: set[int] = set()
    for number in (base_round, earlier):
        while number and number not in needed:
            needed.add(number)
            number = plans[number].since if plans[number].divisor else 0
    return needed
