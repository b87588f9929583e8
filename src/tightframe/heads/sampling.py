"""Random classes for a step over some of many classes, without memory or time that grows with the number of classes."""

from __future__ import annotations

import torch
from torch import Tensor


def sampled_classes(
    labels: Tensor, num_classes: int, num_sampled: int, generator: torch.Generator | None = None
) -> Tensor:
    """The distinct labels and, up to `num_sampled`, other classes drawn without replacement; int64 in increasing order.

    All labels are included, also if they are more. The time is O(M log M) for M classes, if M is at most half of all.

    >>> import torch
    >>> from tightframe.heads.sampling import sampled_classes
    >>> sampled_classes(torch.tensor([3, 7, 3]), 9, 2)
    tensor([3, 7])
    """
    own = labels.unique()
    number = min(num_sampled, num_classes) - len(own)
    if number <= 0:
        return own
    others = distinct(num_classes - len(own), number, labels.device, generator)
    # the i-th class that is no label: as many labels precede it as have at most i other classes before them
    before = own - torch.arange(len(own), device=own.device)
    return torch.cat([own, others + torch.searchsorted(before, others, right=True)]).sort().values


def distinct(number: int, count: int, device: torch.device, generator: torch.Generator | None = None) -> Tensor:
    """`count` of the integers below `number`, drawn without replacement, int64."""
    if 2 * count > number:
        return torch.randperm(number, device=device, generator=generator)[:count]
    draws = torch.empty(0, dtype=torch.int64, device=device)
    while True:
        more = torch.randint(number, (count + count // 2 + 16,), device=device, generator=generator)
        draws = torch.cat([draws, more])
        values, order = draws.sort(stable=True)
        first = torch.ones_like(values, dtype=torch.bool)
        first[1:] = values[1:] != values[:-1]
        places = order[first].sort().values  # where each value was drawn first
        if len(places) >= count:
            return draws[places[:count]]
