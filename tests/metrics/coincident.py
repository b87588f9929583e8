"""Classes of which some share their mean."""

import numpy as np

from oracle import Sample


def coincident(*groups: tuple[int, ...]) -> Sample:
    """Six classes in ten dimensions, each row with its mirror image about the mean; some classes share their mean."""
    rng = np.random.default_rng(3)
    means = np.round(rng.normal(size=(6, 10)) * 64) / 64
    for group in groups:
        means[list(group)] = means[group[0]]
    steps = np.round(rng.normal(size=(6, 4, 10)) * 8) / 64
    features = np.concatenate([means[:, None] + steps, means[:, None] - steps], 1).reshape(48, 10)
    return Sample(features, np.repeat(np.arange(6), 8), 6)
