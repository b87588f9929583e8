"""Statistics as the values of a Dask bag: mapped and merged in processes of Dask's own."""

import dask.bag
import pytest
import torch
from torch import Tensor

from tightframe import ClassStatistics, metrics

SIZES = 1, 2, 250, 33, 16


def statistics_of(features: Tensor, labels: Tensor) -> ClassStatistics:
    return ClassStatistics.from_features(features, labels, 7)


@pytest.mark.parametrize("scheduler", ["threads", "processes"])
def test_a_bag_of_parts_gives_the_statistics_of_the_whole(scheduler: str) -> None:
    torch.manual_seed(0)
    features, labels = torch.randn(sum(SIZES), 5) + 100, torch.randint(0, 7, (sum(SIZES),))
    parts = dask.bag.from_sequence(zip(features.split(SIZES), labels.split(SIZES), strict=True), npartitions=3)
    total = parts.starmap(statistics_of).fold(ClassStatistics.merge).compute(scheduler=scheduler, num_workers=2)
    whole = statistics_of(features, labels)
    assert torch.equal(total.counts, whole.counts)
    torch.testing.assert_close(total.means, whole.means, rtol=1e-12, atol=0)
    torch.testing.assert_close(metrics.nc1(total), metrics.nc1(whole), rtol=1e-9, atol=0)
