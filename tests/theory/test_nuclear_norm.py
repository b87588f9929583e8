"""The solver for nuclear norms against the closed form that a squared distance has."""

import numpy as np
import pytest

from tightframe.theory.nuclear_norm import Curvature, minimise


class Distance:
    """|Q - Y|^2 / 2 + (t - 1)^2 / 2 + c t Q_11."""

    def __init__(self, Y: np.ndarray, coupling: float = 0.0):
        self.Y, self.coupling = Y, coupling

    def at(self, Q: np.ndarray, t: np.ndarray) -> tuple[float, np.ndarray, np.ndarray, Curvature]:
        corner = np.zeros_like(Q)
        corner[0, 0] = self.coupling
        value = ((Q - self.Y) ** 2).sum() / 2 + ((t - 1) ** 2).sum() / 2 + (corner * Q).sum() * t[0]
        return (
            float(value),
            Q - self.Y + corner * t[0],
            t - 1 + (corner * Q).sum(),
            lambda V, v: (V + corner * v[0], v + (corner * V).sum()),
        )


@pytest.mark.parametrize("tau", [1e-6, 0.1, 1.0, 2.5, 100.0])
@pytest.mark.parametrize("shape", [(4, 4), (6, 6)])
def test_singular_values_are_shrunk(tau: float, shape: tuple[int, int]) -> None:
    generator = np.random.default_rng(0)
    Y = generator.standard_normal(shape)
    Q, t = minimise(Distance(Y), tau, generator.standard_normal(shape), np.zeros(1), min(shape))
    left, values, right = np.linalg.svd(Y)
    np.testing.assert_allclose(Q, left * np.maximum(values - tau, 0) @ right, atol=1e-9)
    np.testing.assert_allclose(t, 1, atol=1e-9)


def test_free_variables_are_solved_for_together() -> None:
    """Stationarity: t = 1 - c Q_11, and Q shrinks Y - c t e_1 e_1^T."""
    generator = np.random.default_rng(1)
    Y, tau, coupling = generator.standard_normal((5, 5)), 0.7, 0.5
    Q, t = minimise(Distance(Y, coupling), tau, generator.standard_normal((5, 5)), np.zeros(1), 5)
    assert t[0] == pytest.approx(1 - coupling * Q[0, 0], abs=1e-9)
    moved = Y.copy()
    moved[0, 0] -= coupling * t[0]
    left, values, right = np.linalg.svd(moved)
    np.testing.assert_allclose(Q, left * np.maximum(values - tau, 0) @ right, atol=1e-9)
