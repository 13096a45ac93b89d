"""Improved deep leakage: labels first, from the last layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from attacks.inversion.attackers.dlg import DeepLeakage
from attacks.inversion.attackers.labels import labels_from_last_layer
from attacks.inversion.exposure import Exposure


@dataclass(slots=True, kw_only=True)
class ImprovedDeepLeakage(DeepLeakage):
    """DLG with labels read from the last layer's gradient: of one sample, the class whose entry is negative.

    iDLG: Zhao, Mopuri, Bilen, arXiv 2001.02610. Labels of batches are counted instead.
    """

    name: str = "idlg"

    def unsuited(self, exposure: Exposure) -> str:
        """It needs a last layer that is linear, unless labels are known."""
        text = DeepLeakage.unsuited(self, exposure)
        if text or exposure.labels is not None:
            return text
        try:
            labels_from_last_layer(exposure)
        except ValueError as error:
            return str(error)
        return ""

    def labels(self, exposure: Exposure) -> torch.Tensor | None:
        """Known, or from the last layer."""
        return labels_from_last_layer(exposure) if exposure.labels is None else exposure.labels
