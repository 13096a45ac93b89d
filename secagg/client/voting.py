"""A client's answers to a round's statistics, in one stage or in two."""

from __future__ import annotations

from secagg.client.federation import Federation
from secagg.client.opening import Opening
from secagg.envelope import Ballot
from secagg.errors import CiphertextError, Code, RoundError
from secagg.plan import RoundPlan, RoundState
from secagg.rule import Rule, Stage, StatisticsRequest
from secagg.selection.layout import Layout


class Voting:
    """Opens a round's statistics, judges them by the agreed rule, and signs what comes out.

    Args:
        plan, layout: of the round.
        federation: what the federation is, and the connection.
        opening: opens the statistics.
        rule: the plan's.
    """

    def __init__(
        self, plan: RoundPlan, layout: Layout, federation: Federation, opening: Opening, rule: Rule
    ) -> None:
        self._plan = plan
        self._layout = layout
        self._federation = federation
        self._opening = opening
        self._rule = rule

    def vote(self, own: str) -> float | None:
        """Answer what is asked until the round has no more questions.

        Args:
            own: the id of this client's update, hexadecimal.

        Returns:
            What this client's last answer gives its own update; None if it gave none or it came too late.

        Raises:
            RoundError: NOT_A_CONTRIBUTOR; REQUEST_MALFORMED for a ballot that the agreed rule does not ask
                for.
            CiphertextError: STATISTICS_MALFORMED if the statistics are another round's, release other
                quantities than the rule asks for, speak of fewer updates than the federation promises, or
                leave out this client's own.
        """
        own_weight = None
        for state, stage in (
            (RoundState.SCREENED, Stage.SCREENING),
            (RoundState.SCORED, Stage.STATISTICS),
        ):
            status = self._federation.await_round(self._plan.round, state)
            if not status.contributor:
                raise RoundError(
                    Code.NOT_A_CONTRIBUTOR,
                    f"the server counts no update of {self._federation.identity.name!r} "
                    f"in round {self._plan.round}",
                    round=self._plan.round,
                )
            if status.ballot_wanted and status.state is state:
                own_weight = self._answer(own, stage)
        return own_weight

    def _answer(self, own: str, stage: Stage) -> float | None:
        """Open a stage's statistics, judge them by the agreed rule, and sign what comes out."""
        rule = self._rule
        request = rule.request(self._plan.manifest)
        if request is None or (stage is Stage.SCREENING and not request.screened):
            raise RoundError(
                Code.REQUEST_MALFORMED,
                f"the server wants a ballot on {stage.name}; rule {self._plan.rule!r} has none",
                round=self._plan.round,
            )
        statistics, digest = self._opening.statistics(self._plan, self._layout, request, stage)
        expected = self._expected(request, stage)
        if expected is None and own not in statistics.update_ids:
            raise CiphertextError(
                Code.STATISTICS_MALFORMED,
                f"the statistics of round {self._plan.round} leave out this client's update {own}",
                round=self._plan.round,
            )
        if expected is not None and statistics.update_ids != expected:
            # A minority, or a server that lies: nothing is signed about them either way.
            self._federation.connection.on_event(
                "outvoted",
                {"round": self._plan.round, "expected": len(expected), "found": statistics.size},
            )
            return None
        answer = rule.screen(statistics) if stage is Stage.SCREENING else rule.decide(statistics)
        ballot = Ballot(
            federation_id=self._federation.descriptor.federation_id,
            round=self._plan.round,
            client=self._federation.identity.name,
            stage=stage,
            statistics_sha256=digest,
            answer=answer,
        )
        try:
            self._federation.submit(ballot)
        except RoundError as error:
            if error.code is not Code.STATE_INVALID:
                raise
            # The others' ballots decided before this one came.
            return None
        # Whoever was screened out is asked all the same, about the others.
        places = [place for place, found in enumerate(statistics.update_ids) if found == own]
        own_weight = float(answer.weights[places].sum())
        self._federation.connection.on_event(
            "balloted", {"round": self._plan.round, "stage": stage.name.lower(), "own_weight": own_weight}
        )
        return own_weight

    def _expected(self, request: StatisticsRequest, stage: Stage) -> tuple[str, ...] | None:
        """The updates that a second stage must be about: those that pass this client's own screening, and the
        root's. None for a stage that has none before it.
        """
        if stage is Stage.SCREENING or not request.screened:
            return None
        screening, _ = self._opening.statistics(self._plan, self._layout, request, Stage.SCREENING)
        passed = self._rule.screen(screening).weights > 0
        if screening.root is not None:
            passed[screening.root] = True
        return tuple(item for item, kept in zip(screening.update_ids, passed, strict=True) if kept)
