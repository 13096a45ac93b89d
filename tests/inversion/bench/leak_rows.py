"""Rows of a made-up sweep, as played cells leave them."""

from typing import Any

from attacks.inversion.bench.cell import FULL, NONE

PRIOR_DB = 10.0
"""What is known of every made-up sample without its update."""


def row(significance: str, ratio: float, base_db: float | None, **changes: Any) -> dict[str, Any]:
    """One attack; by default an aware one of sample 0 whose figures say no more than the prior."""
    usual = {
        "victim": "lenet",
        "sample": 0,
        "significance": significance,
        "ratio": ratio,
        "perturb": "",
        "attacker": "gn",
        "aware": True,
        "ended": "done",
        "psnr_db": base_db,
        "ssim": 0.2,
        "token_accuracy": None,
        "bag_accuracy": None,
        "identified": False,
        "psnr_pred_db": PRIOR_DB,
        "mean_psnr_db": PRIOR_DB,
        "mean_ssim": 0.2,
        "hidden_share": ratio,
        "label_correct": None,
        "label_from_mask": None,
        "label_from_update": None,
        "label_chance": 0.1,
    }
    return usual | changes


def of_client(client: str, place: int, played: int, first: int, **changes: Any) -> list[dict[str, Any]]:
    """A recorded client's sample in one round, by magnitude at 0.1, with its references.

    Args:
        place: which of the client's samples.
        played: the round.
        first: the number of the first sample of the client's update of that round.
    """
    own = {"client": client, "client_sample": place, "round": played, "sample": first + place}
    rows = [*references(first + place), row("magnitude", 0.1, PRIOR_DB, **changes)]
    return [one | own for one in rows]


def references(sample: int = 0, *, clear_db: float = 50.0, attacker: str = "gn") -> list[dict[str, Any]]:
    """Ratio 0, where the attack works unless ``clear_db`` says otherwise, and everything hidden."""
    who = {"sample": sample, "attacker": attacker}
    return [
        row(NONE, 0.0, clear_db, psnr_pred_db=100.0, **who),
        row(FULL, 1.0, PRIOR_DB - 3, **who),
    ]
