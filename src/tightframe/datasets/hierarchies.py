"""Trees over the classes of the data sets, for costs and hierarchical heads."""

from __future__ import annotations

from tightframe.datasets.mnist import FASHION_MNIST
from tightframe.errors import DatasetError
from tightframe.hierarchy import Hierarchy

_DIGITS = {
    "digit": {
        "round": {"ring": ["0", "6", "9"], "double": ["3", "8"]},
        "straight": {"stroke": ["1", "7"], "crossed": ["4"]},
        "curved": {"open": ["2", "5"]},
    }
}
_FASHION = {
    "article": {
        "clothing": {
            "upper body": {"light": ["T-shirt/top", "Shirt"], "warm": ["Pullover", "Coat"]},
            "lower body": {"legs": ["Trouser"]},
            "whole body": {"gown": ["Dress"]},
        },
        "footwear": {"open": {"strapped": ["Sandal"]}, "closed": {"low": ["Sneaker"], "high": ["Ankle boot"]}},
        "accessory": {"carried": {"by hand": ["Bag"]}},
    }
}


def hierarchy_of(name: str) -> Hierarchy:
    """The tree over a data set's classes, in class order.

    Of digits and mnist: by looks, Sainte Fare Garnot & Landrieu 2021 (distances 2, 4 and 6 hops); of fashion-mnist:
    by where an article is worn, made for this package.
    Raises: DatasetError for other data sets.

    >>> hierarchy_of("digits").distances()[0].int().tolist()
    [0, 6, 6, 4, 6, 6, 2, 6, 4, 2]
    """
    if name in ("digits", "mnist"):
        return Hierarchy.from_nested(_DIGITS, classes=list("0123456789"))
    if name == "fashion-mnist":
        return Hierarchy.from_nested(_FASHION, classes=FASHION_MNIST.class_names)
    raise DatasetError(f"there is no tree over the classes of {name!r}; there are for digits, mnist and fashion-mnist.")
