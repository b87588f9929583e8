"""What the tests of heads share: draws, the oracle as tensors, layouts, modules with known parts."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from tightframe.heads import SIMILARITIES
from training_oracle import head_logits

KINDS = tuple(SIMILARITIES)
LINEAR = ("dot", "cosine", "squared-euclidean")  # those that `fold` takes
CURVED = tuple(kind for kind in KINDS if kind not in LINEAR)


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Normal numbers, the same for every call with the same seed."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def expected(kind: str, z: Tensor, P: Tensor, scale: float = 1.0, delta: float = 1.0) -> Tensor:
    """The oracle's logits (N, K), float64, of the values as they are."""
    rows, vectors = z.detach().double().numpy(), P.detach().double().numpy()
    return torch.from_numpy(head_logits(kind, rows, vectors, scale, delta))


def assert_close(actual: Tensor, wanted: Tensor, tolerance: float) -> None:
    """Values within a relative tolerance, or that times the largest of them, whatever the dtypes."""
    size = float(wanted.detach().abs().max())
    torch.testing.assert_close(
        actual.detach().double(), wanted.detach().double(), rtol=tolerance, atol=tolerance * size
    )


def as_layouts(rows: Tensor) -> list[tuple[Tensor, Callable[[Tensor], Tensor]]]:
    """Rows (12, D) as (N, D), (N, T, D), (N, D, H, W) and that channels last; each with its way back to (12, K)."""
    tokens = rows.reshape(3, 4, -1)
    pixels = rows.reshape(2, 2, 3, -1).movedim(-1, 1)

    def from_pixels(values: Tensor) -> Tensor:
        return values.movedim(1, -1).flatten(0, 2)

    return [
        (rows, lambda values: values),
        (tokens, lambda values: values.flatten(0, 1)),
        (pixels.contiguous(), from_pixels),
        (pixels.contiguous().to(memory_format=torch.channels_last), from_pixels),
    ]


def labels_like(labels: Tensor) -> list[Tensor]:
    """Labels (12,) in the layouts of `as_layouts`."""
    return [labels, labels.reshape(3, 4), labels.reshape(2, 2, 3), labels.reshape(2, 2, 3)]


def same_tensors(left: Sequence[Tensor], right: Sequence[Tensor]) -> bool:
    """Equal dtypes, shapes and bits."""
    return len(left) == len(right) and all(
        a.dtype == b.dtype and a.shape == b.shape and a.numpy(force=True).tobytes() == b.numpy(force=True).tobytes()
        for a, b in zip(left, right, strict=True)
    )


def state(module: nn.Module) -> list[Tensor]:
    """Copies of all parameters and buffers, those that aren't saved too."""
    return [value.detach().clone() for value in (*module.parameters(), *module.buffers())]
