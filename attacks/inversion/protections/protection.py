"""What of an update is encrypted, and what is done to the rest."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from attacks.inversion.batch import Batch
from attacks.inversion.exposure import Exposure
from attacks.inversion.protections import rounds as federation
from attacks.inversion.protections.choice import (
    by_mean_score,
    from_the_back,
    from_the_front,
    shuffled,
    whole_tensors,
)
from attacks.inversion.protections.perturbations import Perturbation
from attacks.inversion.protections.scores import SCORES, Evidence
from attacks.inversion.protections.sending import Precision
from attacks.inversion.protections.significance import Granularity, Scores, Significance
from attacks.inversion.protections.text import (
    STATISTICS,
    check_tensors,
    choose,
    invalid,
    number,
    parse_step,
    parse_tensors,
    print_number,
    print_step,
)
from attacks.inversion.training import Training
from attacks.inversion.victims.victim import Victim
from secagg import plan
from secagg.selection import Layout, Mask, derive_mask, mask_of_scores
from secagg.update import Manifest

_DEFAULT_RATIOS = {Significance.NONE: 0.0, Significance.FULL: 1.0, Significance.LAYERS: 1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Protection:
    """How much of an update an eavesdropper, or the aggregator, sees, and how.

    Masks and visible parts come from what seals a federation's updates (``secagg.selection``), so that what
    is attacked is what would be sent.

    Args:
        significance: which entries are encrypted; they are the same ceil(ratio·d) that the wire would take.
        ratio: share of encrypted entries, in [0, 1]; 0 and 1 with ``none`` and ``full``, and 1 with
            ``layers``, where the names decide. NaN, the default, stands for those, and elsewhere for 1.
        granularity: ``layer`` encrypts whole tensors, by mean score, until the ratio is reached.
        scores: ``own``, those of the attacked update, as is published of most selective schemes, or
            ``common``, those of other clients' samples and updates together: the one mask per round that
            clients agree on from what they learn in sum.
        layers: names of the tensors that ``layers`` encrypts.
        perturbations: what is done to the visible part, in order.
        statistics: names of tensors that are encrypted whole, whatever the mask says, because a rule compares
            updates by them; unless nothing at all is encrypted, or they are the whole model.

    Raises:
        ConfigError: CONFIG_INVALID for a combination that says nothing or contradicts itself.
    """

    significance: Significance
    ratio: float = math.nan
    granularity: Granularity = Granularity.ENTRY
    scores: Scores = Scores.OWN
    layers: tuple[str, ...] = ()
    perturbations: tuple[Perturbation, ...] = ()
    statistics: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        name = self.significance
        if math.isnan(self.ratio):
            object.__setattr__(self, "ratio", _DEFAULT_RATIOS.get(name, 1.0))
        if not 0 <= self.ratio <= 1:
            raise invalid(f"ratio is {self.ratio:g}; a share of entries lies in [0, 1]")
        if name.fixed and self.ratio != _DEFAULT_RATIOS[name]:
            raise invalid(f"ratio is {self.ratio:g}; with significance {name} it says nothing: leave it out")
        if name.fixed and self.granularity is not Granularity.ENTRY:
            raise invalid(f"significance {name} has no granularity: leave it out")
        if self.scores is Scores.COMMON and not name.scored:
            raise invalid(f"significance {name} does not depend on samples: leave scores = common out")
        if (name is Significance.LAYERS) != bool(self.layers):
            raise invalid("layers must name at least one tensor with significance layers, none otherwise")
        check_tensors(self.layers, "layers")
        check_tensors(self.statistics, STATISTICS)

    @classmethod
    def parse(cls, text: str, *, ratio: float | None = None) -> Protection:
        """From its text form, as in ``attacks.inversion.protections.text``.

        >>> Protection.parse("magnitude/layer@common:0.1+noise:0.01").ratio
        0.1

        Args:
            text: the form.
            ratio: if the text holds none; ignored where it says nothing, so that a sweep can give it to all.

        Raises:
            ConfigError: CONFIG_INVALID for an unknown name, listing what there is, or a bad value.
        """
        head, *steps = text.split("+")
        head, equals, names = head.partition("=")
        if equals:
            significance = choose(Significance, head, "significance")
            if significance is not Significance.LAYERS:
                raise invalid(f"{text!r}: only layers=NAME,NAME takes names")
            layers, granularity, scores = parse_tensors(names), Granularity.ENTRY, Scores.OWN
            colon = share = ""
        else:
            head, colon, share = head.partition(":")
            head, at, whose = head.partition("@")
            head, slash, piece = head.partition("/")
            significance = choose(Significance, head, "significance")
            granularity = choose(Granularity, piece, "granularity") if slash else Granularity.ENTRY
            scores, layers = choose(Scores, whose, "scores") if at else Scores.OWN, ()
        prefix = f"{STATISTICS}="
        given = math.nan if ratio is None or significance.fixed else ratio
        return cls(
            significance=significance,
            ratio=number(share) if colon else given,
            granularity=granularity,
            scores=scores,
            layers=layers,
            perturbations=tuple(parse_step(step) for step in steps if not step.startswith(prefix)),
            statistics=tuple(
                name
                for step in steps
                if step.startswith(prefix)
                for name in parse_tensors(step.removeprefix(prefix))
            ),
        )

    @property
    def label(self) -> str:
        """The text form without the ratio: what a curve over ratios is called."""
        return self._print(ratio=False)

    def __str__(self) -> str:
        """The text form; ``parse`` makes an equal protection of it."""
        return self._print(ratio=True)

    def _print(self, *, ratio: bool) -> str:
        head = str(self.significance)
        if self.layers:
            head += f"={','.join(self.layers)}"
        if self.granularity is not Granularity.ENTRY:
            head += f"/{self.granularity}"
        if self.scores is not Scores.OWN:
            head += f"@{self.scores}"
        if ratio and not self.significance.fixed:
            head += f":{print_number(self.ratio)}"
        statistics = [f"{STATISTICS}={','.join(self.statistics)}"] if self.statistics else []
        return "+".join([head, *(print_step(step) for step in self.perturbations), *statistics])

    def at(self, ratio: float) -> Protection:
        """The same with another ratio; unchanged where the ratio says nothing."""
        return self if self.significance.fixed else replace(self, ratio=ratio)

    def score(self, evidence: Evidence) -> torch.Tensor:
        """Significance of every entry, [d].

        Raises:
            ConfigError: CONFIG_INVALID if this protection's significance is none that scores.
        """
        if self.significance not in SCORES:
            raise invalid(f"significance {self.significance} has no scores")
        return SCORES[self.significance](evidence).detach()

    def masked(self, evidence: Evidence, *, seed: int, round: int = 1) -> Mask:
        """What is encrypted, statistics aside.

        Args:
            evidence: the attacked client's own, or that of others, as ``scores`` says.
            seed: decides ``random``.
            round: likewise; 1, 2, 3, …

        Raises:
            UpdateError: UPDATE_NOT_FINITE if a score is NaN; MANIFEST_MISMATCH for an unknown tensor.
        """
        manifest, ratio = evidence.victim.manifest, self.ratio
        whole = self.granularity is Granularity.LAYER
        match self.significance:
            case Significance.FIRST if whole:
                return whole_tensors(manifest, range(len(manifest.tensors)), ratio)
            case Significance.LAST if whole:
                return whole_tensors(manifest, range(len(manifest.tensors))[::-1], ratio)
            case Significance.RANDOM if whole:
                generator = federation.generator_of(seed, round, "tensors")
                return whole_tensors(manifest, shuffled(manifest, generator), ratio)
            case Significance.FIRST:
                return from_the_front(manifest.size, ratio)
            case Significance.LAST:
                return from_the_back(manifest.size, ratio)
            case Significance.NONE | Significance.FULL | Significance.LAYERS | Significance.RANDOM:
                return derive_mask(self._planned(), manifest, _federation_id(seed), round)
        scores: NDArray[np.floating] = self.score(evidence).cpu().numpy()
        if whole:
            return whole_tensors(manifest, by_mean_score(manifest, scores), ratio)
        return mask_of_scores(scores, ratio)

    def layout(self, manifest: Manifest, mask: Mask) -> Layout:
        """How an update under this mask travels.

        Raises:
            UpdateError: MASK_MISMATCH; MANIFEST_MISMATCH for an unknown tensor among ``statistics``.
        """
        return Layout(manifest, mask, (self.statistics,) if self.statistics else ())

    def expose(
        self,
        victim: Victim,
        parameters: torch.Tensor,
        training: Training,
        batch: Batch,
        *,
        others: Sequence[Batch] = (),
        labels_known: bool = True,
        seed: int,
        precision: Precision = "float32",
    ) -> Exposure:
        """What an attacker that knows of the mask sees of one client's update.

        Args:
            victim, parameters, training: where the update comes from.
            batch: the client's samples.
            others: other clients'; ``scores = common`` needs them.
            labels_known: whether the attacker knows the labels.
            seed: of random masks, noise and estimates.
            precision: of the visible values as sent; the wire's is float32. Of float64, the exposure's
                visible values are the update's own, which no federation sends.

        Raises:
            ConfigError: CONFIG_INVALID for samples that don't fit, or no others where they are needed.
            UpdateError: UPDATE_NOT_FINITE if training diverged; MANIFEST_MISMATCH for an unknown tensor.
        """
        return self.expose_rounds(
            victim,
            parameters,
            training,
            batch,
            rounds=1,
            others=others,
            labels_known=labels_known,
            seed=seed,
            precision=precision,
        )

    def expose_rounds(
        self,
        victim: Victim,
        parameters: torch.Tensor,
        training: Training,
        batch: Batch,
        *,
        rounds: int,
        others: Sequence[Batch] = (),
        labels_known: bool = True,
        seed: int,
        precision: Precision = "float32",
    ) -> Exposure:
        """The last of several rounds over the same samples, with the earlier ones in ``earlier``.

        Between rounds the model becomes the mean of all clients' models, weighted by their samples (FedAvg,
        McMahan et al. 2017): θ ← θ − T·learning_rate·Σ n_i·u_i/Σ n_i. Masks are chosen anew each round; under
        ``scores = common`` from updates of the round itself, where a federation takes the round before.

        Exposures hold whole models. Without others the difference of two is the client's update, hidden
        entries included: an attacker that looks there needs no other attack.

        Args:
            rounds: at least 1. The others are as in ``expose``.

        Raises:
            ConfigError, UpdateError: as ``expose``.
        """
        return federation.expose_rounds(
            self,
            victim,
            parameters,
            training,
            batch,
            rounds=rounds,
            others=others,
            labels_known=labels_known,
            seed=seed,
            precision=precision,
        )

    def _planned(self) -> plan.Protection:
        """The same in a round plan's words; a plan names no ratio of 0, but nothing then is hidden."""
        if self.significance is Significance.FULL:
            return plan.Protection.full()
        if self.significance is Significance.LAYERS:
            return plan.Protection.selective(significance=plan.Significance.LAYERS, layers=self.layers)
        if self.ratio == 0:
            return plan.Protection.plain()
        return plan.Protection.selective(significance=plan.Significance.RANDOM, ratio=self.ratio)


def _federation_id(seed: int) -> bytes:
    return hashlib.sha256(f"federation {seed}".encode()).digest()[:16]
