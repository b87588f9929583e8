"""`code`: an exact spherical code as prototypes."""

from __future__ import annotations

from torch import Tensor

from tightframe.choices import require_choice
from tightframe.codes import CODES
from tightframe.prototypes.construction import Facts, construction, require_room


@construction("see `tightframe.codes.CODES`")
def code(name: str, num_classes: int | None = None, *, dim: int | None = None) -> tuple[Tensor, Facts]:
    """An exact code, or its first K vectors, padded with zeros to `dim` columns.

    Kerdock and Gold codes are ordered by orthonormal bases (or, punctured, by simplices), so that the first vectors
    are well separated; the first vectors of a BCH code are a smaller BCH code. The order of other codes is arbitrary;
    `best` selects better parts.

    Returns: (K, dim) unit vectors.
    Raises: ChoiceError for a name outside `tightframe.codes.CODES`, DimensionError unless 2 <= num_classes <= the
    code's K and dim >= its D.

    >>> from tightframe.prototypes import code
    >>> code("petersen").vectors.shape
    torch.Size([10, 4])
    """
    require_choice(name, CODES, "code", table="tightframe.codes.CODES")
    row = CODES[name]
    num_classes = row.K if num_classes is None else num_classes
    require_room(f"the code {name!r}", num_classes, row.D if dim is None else dim, row.K, fewest=row.D)
    return row.vectors(num_classes), {"source": row.source}
