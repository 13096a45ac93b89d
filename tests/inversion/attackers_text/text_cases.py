"""Small transformers, sentences and exposures that several tests share."""

import numpy as np
import torch

from attacks.inversion.batch import Batch
from attacks.inversion.exposure import Exposure
from attacks.inversion.training import Training
from attacks.inversion.victims import transformer
from attacks.inversion.victims.victim import Victim
from secagg.selection.mask import mask_of_scores

WORDS, TOKENS = 60, 6


def small_victim(
    kind: str, *, tokens: int = TOKENS, width: int = 32, layers: int = 2, seed: int = 0
) -> Victim:
    """Two heads, random weights, float64; GPT-2 and BERT as the bench builds them."""
    previous = transformer.WIDTH, transformer.LAYERS
    transformer.WIDTH, transformer.LAYERS = width, layers
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = getattr(transformer, kind)((tokens,), 2, vocabulary=WORDS)
    finally:
        transformer.WIDTH, transformer.LAYERS = previous
    return Victim(name=kind, module=module.to(torch.float64), shape=(tokens,), classes=2, vocabulary=WORDS)


def exposed(
    victim: Victim,
    batch: Batch,
    *,
    ratio: float = 0.0,
    random: bool = False,
    aware: bool = True,
    float32: bool = False,
) -> Exposure:
    """What stays visible of a batch's gradient once its largest, or random, entries are encrypted."""
    parameters, training = victim.parameters(), Training()
    update = training.update(victim, parameters, batch)
    if float32:
        update = update.float().to(update.dtype)
    scores = update.abs().numpy()
    if random:
        scores = np.random.default_rng(0).random(victim.size)
    hidden = torch.from_numpy(mask_of_scores(scores, ratio).hidden.copy())
    return Exposure(
        victim=victim,
        parameters=parameters,
        training=training,
        batch_size=len(batch),
        visible=torch.where(hidden, 0.0, update),
        hidden=hidden,
        aware=aware,
    )


def sentences(rows: list[list[int]], labels: list[int]) -> Batch:
    return Batch(inputs=torch.tensor(rows), labels=torch.tensor(labels))


ONE = sentences([[17, 40, 5, 33, 5, 21]], [1])
TWO = sentences([[17, 40, 5, 33, 8, 21], [9, 50, 44, 3, 28, 12]], [1, 0])
