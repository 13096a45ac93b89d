"""Which labels a batch had: from the last layer's gradient, and from the places where it is hidden."""

from __future__ import annotations

import copy

import torch
from torch.nn.functional import cross_entropy

from attacks.inversion.attackers.layers.linear import (
    LinearLayer,
    closed,
    features,
    last_layer,
    probe_inputs,
)
from attacks.inversion.exposure import Exposure

PRIOR_SAMPLES = 16
"""How many random samples say what the network answers and what its last layer reads on average."""
LEAST_POWER = 1e-2
"""How much of ā·ā must be visible in a row for it to say anything."""


def labels_from_last_layer(exposure: Exposure) -> torch.Tensor:
    """The labels that explain the last layer's gradient; int64 [B], in ascending order.

    Cross entropy gives ∂L/∂b_c = mean_s p_sc − n_c/B, so the only negative entry is the label of a single
    sample (iDLG, Zhao, Mopuri, Bilen, arXiv 2001.02610, §3), and a batch has n_c = B·(p̄_c − ∂L/∂b_c)
    samples of class c. p̄ is the mean answer to random samples, as in LLG (Wainakh et al., arXiv 2105.09369,
    §4). A row of ∂L/∂W stands in for a hidden bias: ∂L/∂W_c ≈ ∂L/∂b_c·ā, with ā the mean input of
    the layer. Single hidden entries of a column follow from the others (``closed``); rows of which too little
    is seen share the labels that are left.

    Raises:
        ValueError: if the network has no linear layer that gives its logits.
    """
    return _allot(_counts(exposure, use_mask=False), exposure.batch_size)


def labels_from_mask(exposure: Exposure) -> torch.Tensor:
    """The labels that explain which entries of the last layer are hidden; int64 [B], in ascending order.

    Scores by magnitude grow with |∂L/∂b_c| = |p̄_c − n_c/B|, largest for classes that occur: a single
    sample's label is the row with most hidden entries. A batch's labels are shared out in proportion to what
    rows have hidden beyond the row with fewest.

    Raises:
        ValueError: if the network has no linear layer that gives its logits.
    """
    hidden = _hidden_per_row(exposure, _last(exposure))
    return _allot(_proportional(hidden - hidden.min(), exposure.batch_size), exposure.batch_size)


def infer_labels(exposure: Exposure) -> torch.Tensor:
    """The best guess an attacker has at the labels; int64 [B].

    What it knows anyway; otherwise what the last layer's visible rows say, and, if it is aware of the mask,
    for rows with nothing visible what the mask says.

    Raises:
        ValueError: if labels are unknown and no linear layer gives the network's logits.
    """
    if exposure.labels is not None:
        return exposure.labels
    return _allot(_counts(exposure, use_mask=exposure.aware), exposure.batch_size)


def labels_from_errors(
    exposure: Exposure, layer: LinearLayer, inputs: torch.Tensor, errors: torch.Tensor
) -> torch.Tensor:
    """The labels with which these samples would have these errors; int64 [k].

    Whoever has a sample x_s and its δ_s = ∂L/∂y at some layer tries all labels: argmin_c ‖δ_s − δ(x_s, c)/B‖.

    Args:
        exposure: of one gradient; of several steps errors, and labels, are approximate.
        layer: whose outputs ``errors`` belong to; applied once per sample.
        inputs: [k, *shape].
        errors: [k, outputs]; NaN where they aren't known.
    """
    victim = exposure.victim
    module = copy.deepcopy(victim.module)
    outputs: list[torch.Tensor] = []
    module.get_submodule(layer.path).register_forward_hook(lambda _, __, given: outputs.append(given))
    # Parameters that ask for gradients, so that the layer's output is part of a graph.
    parameters = exposure.parameters.clone().requires_grad_()
    logits = torch.func.functional_call(module, dict(victim.named(parameters)), (inputs,))
    # Dead units have no errors with any label; other zeros may be hidden entries of whoever doesn't know it.
    known = errors.isfinite() & (errors != 0)
    misfits = []
    for label in range(victim.classes):
        labels = torch.full((len(inputs),), label, device=inputs.device)
        loss = cross_entropy(logits, labels, reduction="sum") / exposure.batch_size
        (expected,) = torch.autograd.grad(loss, outputs[0], retain_graph=True)
        gaps = torch.where(known, errors - expected.reshape(errors.shape), 0.0)
        misfits.append(gaps.square().sum(dim=1))
    return torch.stack(misfits).argmin(dim=0)


def remaining_labels(exposure: Exposure, found: torch.Tensor) -> torch.Tensor:
    """The best guess at the labels of a batch's other samples when some, int64 [k], are known; int64 [B − k].

    Raises:
        ValueError: as ``infer_labels``.
    """
    classes = exposure.victim.classes
    if exposure.labels is not None:
        counts = torch.bincount(exposure.labels, minlength=classes).to(torch.float64)
    else:
        counts = _counts(exposure, use_mask=exposure.aware)
    return _allot(counts - torch.bincount(found, minlength=classes), exposure.batch_size - len(found))


def _last(exposure: Exposure) -> LinearLayer:
    layer = last_layer(exposure.victim)
    if layer is None:
        raise ValueError(f"victim {exposure.victim.name} has no linear layer that gives its logits")
    return layer


def _hidden_per_row(exposure: Exposure, layer: LinearLayer) -> torch.Tensor:
    hidden = exposure.victim.named(exposure.hidden)
    count = hidden[layer.weight].sum(dim=1).to(torch.float64)
    return count if layer.bias is None else count + hidden[layer.bias].to(torch.float64)


def _counts(exposure: Exposure, *, use_mask: bool) -> torch.Tensor:
    """n_c as far as known, real numbers [classes]."""
    layer = _last(exposure)
    values, seen = closed(*layer.gradient(exposure))
    values = values.to(torch.float64)
    probes = probe_inputs(exposure.victim, PRIOR_SAMPLES, seed=0)
    with torch.no_grad():
        answers = torch.softmax(exposure.victim.outputs(exposure.parameters, probes), dim=1).mean(dim=0)
    answers = answers.to(torch.float64)
    mean = features(exposure.victim, layer, exposure.parameters, probes).to(torch.float64).mean(dim=0)
    counts = values.new_full((layer.outputs,), float("nan"))
    # Of one row, ∂L/∂W_c·ā over what is seen, divided by ā·ā over the same. A column that is 0 wherever it is
    # seen belongs to a feature that these samples don't have, whatever others have there.
    weights, shown = values[:, : layer.inputs], seen[:, : layer.inputs]
    shown = (shown & (weights != 0).any(dim=0)).to(torch.float64)
    power = shown @ mean.square()
    rows = power > LEAST_POWER * mean.square().sum()
    slope = ((weights * shown) @ mean)[rows] / power[rows]
    counts[rows] = exposure.batch_size * (answers[rows] - slope)
    if layer.bias is not None and not exposure.aware:
        # Some of what it takes for zeros is hidden: only bias and weights together still have a sign.
        slope = (weights @ mean + values[:, layer.inputs]) / (mean.square().sum() + 1)
        counts = exposure.batch_size * (answers - slope)
    elif layer.bias is not None:
        known = seen[:, layer.inputs]
        counts[known] = exposure.batch_size * (answers - values[:, layer.inputs])[known]
    unknown = counts.isnan()
    if unknown.any():
        left = max(0.0, exposure.batch_size - float(counts[~unknown].sum()))
        share = torch.zeros_like(counts)
        if use_mask:
            share = _hidden_per_row(exposure, layer)
            share = torch.where(unknown, share - share.min(), 0.0)
        if float(share.sum()) == 0:
            share = torch.where(unknown, answers, 0.0)
        counts[unknown] = _proportional(share, left)[unknown]
    return counts


def _proportional(weight: torch.Tensor, total: float) -> torch.Tensor:
    return weight * (total / weight.sum()) if float(weight.sum()) > 0 else torch.zeros_like(weight)


def _allot(counts: torch.Tensor, total: int) -> torch.Tensor:
    """Whole numbers near ``counts`` that sum to ``total``: one label at a time, where most is left."""
    left, chosen = counts.clone(), []
    for _ in range(total):
        label = int(left.argmax())
        chosen.append(label)
        left[label] -= 1
    return torch.tensor(sorted(chosen), dtype=torch.int64, device=counts.device)
