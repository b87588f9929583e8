"""Arrays from the files that users have, without running anything that is in them, and the source of these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tightframe.errors import ClassifierError, StateError
from tightframe.options import Measuring
from tightframe.reading import read_arrays
from tightframe.reading.arrays import SUFFIXES, wrong_suffix
from tightframe.sources.arrays import ArraySource
from tightframe.sources.source import FeatureSource
from tightframe.sources.tables import PARQUET

_SEVERAL = (".npy", ".safetensors", *PARQUET)
_FEATURES = ("features", "x", "embeddings", "h")
_LABELS = ("labels", "label", "y", "targets")
_WEIGHT = ("weight", "w", "classifier.weight", "fc.weight", "head.weight")
_BIAS = ("bias", "b", "classifier.bias", "fc.bias", "head.bias")


def pick(arrays: Mapping[str, Any], names: tuple[str, ...], path: Path, *, required: bool = True) -> Any:
    """The array under the first of the names, or a lone array. Raises: StateError listing the file's arrays."""
    for name in (*names, ""):
        if name in arrays:
            return arrays[name]
    if required:
        raise StateError(f"{path} has no array called {' or '.join(names)}. Its arrays: {arrays}.")
    return None


def from_files(
    features: Path | Sequence[Path],
    labels: Path | Sequence[Path] | None = None,
    *,
    weight: Path | None = None,
    bias: Path | None = None,
    test: Path | None = None,
    ood: Path | None = None,
    options: Measuring | Mapping[str, Any] | None = None,
) -> FeatureSource:
    """The source of features in files: .npz, .npy (memory-mapped), .safetensors, .pt or .parquet.

    Args:
        features: features (N, D) and, but for .npy, labels; or a list of files, read as shards.
        labels: labels (N,), where they aren't in the features' file; a file for each of several.
        weight, bias: of the linear classifier, (K, D) and (K,), in one file or two.
        test: held-out features and labels. ood: out-of-distribution features.
        options: as of `ArraySource`.

    Raises: StateError for unreadable files or arrays that aren't there, ClassifierError for a bias without a weight,
    and the errors of `ArraySource`.
    """
    if weight is None and bias is not None:
        raise ClassifierError("a bias needs the classifier's weight: pass weight= too.")
    rows, offsets = _classifier(weight, bias)
    features = [features] if isinstance(features, Path) else features
    if len(features) > 1 or features[0].suffix in PARQUET:
        from tightframe.sources.shards import ShardSource

        if strange := [path for path in features if path.suffix not in _SEVERAL]:
            raise StateError(
                f"several files must be .npy, .safetensors or .parquet; got {strange[0]}. A .npz, .pt or .pth file "
                "is measured alone."
            )
        files = [labels] if isinstance(labels, Path) else labels
        held_out, outside = (None if each is None else [each] for each in (test, ood))
        return ShardSource.from_files(
            features, files, test=held_out, ood=outside, weight=rows, bias=offsets, options=options
        )
    (file,) = features
    if file.suffix not in SUFFIXES:
        raise wrong_suffix(file, (*SUFFIXES, PARQUET[0]))
    if labels is not None and not isinstance(labels, Path):
        if len(labels) != 1:
            raise StateError(f"give one file of labels for {file}; got {len(labels)}.")
        (labels,) = labels
    x, y = _features_and_labels(file, labels)
    return ArraySource(
        x,
        y,
        weight=rows,
        bias=offsets,
        test=None if test is None else _features_and_labels(test, None),
        ood=None if ood is None else pick(read_arrays(ood), _FEATURES, ood),
        options=options,
        divided=True,
        name=file.name,
        title=f"Neural collapse of {file.name}",
    )


def _classifier(weight: Path | None, bias: Path | None) -> tuple[Any, Any]:
    if weight is None:
        return None, None
    arrays = read_arrays(weight)
    rows = pick(arrays, _WEIGHT, weight)
    if bias is not None:
        return rows, pick(read_arrays(bias), _BIAS, bias)
    return rows, None if "" in arrays else pick(arrays, _BIAS, weight, required=False)


def _features_and_labels(features: Path, labels: Path | None) -> tuple[Any, Any]:
    arrays = read_arrays(features)
    x = pick(arrays, _FEATURES, features)
    if labels is not None:
        return x, pick(read_arrays(labels), _LABELS, labels)
    if not any(name in arrays for name in _LABELS):
        raise StateError(f"{features} has no labels ({', '.join(_LABELS)}). Its arrays: {arrays}. Give --labels.")
    return x, pick(arrays, _LABELS, features)
