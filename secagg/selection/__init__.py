"""Which entries of an update are encrypted, and how they are cut into blocks."""

from secagg.selection.layout import REST_BLOCK, STATISTICS_BLOCK, Layout
from secagg.selection.mask import Mask, derive_mask, mask_of_scores, propose_mask, required_mask

__all__ = [
    "REST_BLOCK",
    "STATISTICS_BLOCK",
    "Layout",
    "Mask",
    "derive_mask",
    "mask_of_scores",
    "propose_mask",
    "required_mask",
]
