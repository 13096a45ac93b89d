"""Gradient matching over embeddings."""

import torch
from text_cases import exposed, sentences, small_victim

from attacks.inversion.attackers.attacker import Budget, Status
from attacks.inversion.attackers.tag import Tag, _Objective, nearest_words
from attacks.inversion.attackers.words.text_layers import reads_text
from attacks.inversion.victims import embedding_name

SHORT = sentences([[17, 40, 5]], [1])


def test_words_are_those_at_the_smallest_angle() -> None:
    """Their own embeddings, longer or shorter, become the words again."""
    victim = small_victim("bert", tokens=3)
    parameters = victim.parameters()
    vectors = victim.named(parameters)["bert.embeddings.word_embeddings.weight"]
    found = nearest_words(vectors, 3 * vectors[SHORT.inputs])
    assert reads_text(victim) and found.tolist() == SHORT.inputs.tolist()


def test_true_embeddings_leave_nothing_to_match() -> None:
    """Loss 0 at the truth with any part hidden; not the naive attacker's: zeros aren't what was there."""
    victim = small_victim("gpt2", tokens=3)
    exposure = exposed(victim, SHORT, ratio=0.1)
    truth = victim.named(exposure.parameters)[embedding_name(victim)][SHORT.inputs]
    losses = [
        float(_Objective(e, alpha=0.1, decay=1.0)(truth, SHORT.labels))
        for e in (exposure, exposure.seen_by(aware=False))
    ]
    assert losses[0] < 1e-10 and losses[1] > 1e-2


def test_the_loss_sinks_and_the_seed_decides_the_result() -> None:
    """Thirty steps do better than three, and do the same again."""
    exposure = exposed(small_victim("gpt2", tokens=3), SHORT)
    short, long, again = (
        Tag().attack(exposure, seed=1, budget=Budget(effort=effort)) for effort in (0.012, 0.12, 0.12)
    )
    assert long.loss < 0.7 * short.loss and long.status is Status.DONE
    assert long.iterations == 30 and torch.equal(long.inputs, again.inputs) and long.loss == again.loss
