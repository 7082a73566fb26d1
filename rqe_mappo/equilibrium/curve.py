"""Newton's method and pseudo-arclength continuation for equations that are easy at level 0."""

import numpy as np

BRANCH_STEPS = 1000
# Least cosine between neighbouring tangents, and largest correction as a share of the stride: what turns more sharply
# or lies further off may be another branch. The second pair is for curves whose sheets lie close together.
STEP_LIMITS = ((0.9, 0.5), (0.995, 0.05))


class Curve:
    """The curve H(point, level) = 0, known at level 0 and wanted at level `goal`.

    A subclass gives `origin`, the point at level 0, and `equations`, which also sets whether its point is `inside`
    the region where H means something. `steps` counts evaluations.
    """

    goal: float
    steps: int = 0
    inside: bool = True

    def origin(self) -> np.ndarray:
        raise NotImplementedError

    def equations(self, point: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """H `[D]`, dH/dpoint `[D, D]` and dH/dlevel `[D]`."""
        raise NotImplementedError

    def newton(self, point: np.ndarray, limit: int = 100) -> np.ndarray:
        """Damped Newton at the goal; gives its last point, a root or not."""
        error, jacobian, _ = self.equations(point, self.goal)
        for _ in range(limit):
            step = solve_linear(jacobian, -error)
            if not np.isfinite(step).all() or np.abs(step).max() <= 1e-14 * (1 + np.abs(point).max()):
                break
            size = 1.0
            while size > 1e-8:
                trial = point + size * step
                new, new_jacobian, _ = self.equations(trial, self.goal)
                if np.linalg.norm(new) < (1 - 1e-4 * size) * np.linalg.norm(error):
                    break
                size /= 2
            else:
                break
            point, error, jacobian = trial, new, new_jacobian
        return point

    def follow(self, least_cosine: float, most_off: float) -> np.ndarray:
        """The curve's point at its first arrival at the goal, or the last one before it was lost, polished by Newton.

        Euler steps along the tangent, Newton back to the curve at right angles to it; passes turning points.
        """
        point, level = self.origin(), 0.0
        _, jacobian, pull = self.equations(point, level)
        tangent = _tangent(jacobian, pull, np.append(np.zeros(len(point)), 1.0))
        stride = 0.1
        for _ in range(BRANCH_STEPS):
            ahead = tangent[-1] * stride
            last = level + ahead >= self.goal
            if level + ahead < 0:
                break  # only by a jump between sheets: at level 0 there is the origin alone
            if last:
                stride = (self.goal - level) / tangent[-1]
            guess = np.append(point, level) + stride * tangent
            found = self._correct(guess, tangent, pin=last)
            if found is not None:
                at, jacobian, pull, count = found
                new = _tangent(jacobian, pull, tangent)
                if new @ tangent > least_cosine and np.linalg.norm(at - guess) <= most_off * stride:
                    point, level, tangent = at[:-1], at[-1], new
                    if last:
                        return self.newton(point, limit=10)
                    stride *= 2.0 if count <= 3 else 1.0 if count <= 5 else 0.5
                    continue
            stride /= 4
            if stride < 1e-10:
                break
        return self.newton(point)

    def _correct(
        self, guess: np.ndarray, tangent: np.ndarray, pin: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, int] | None:
        """Newton back to the curve in the plane at right angles to the tangent (`pin`: at the guess's level)."""
        normal = np.append(np.zeros(len(guess) - 1), 1.0) if pin else tangent
        at = guess
        for count in range(1, 9):
            error, jacobian, pull = self.equations(at[:-1], at[-1])
            step = solve_linear(_bordered(jacobian, pull, normal), -np.append(error, normal @ (at - guess)))
            at = at + step
            if not np.isfinite(at).all():
                return None
            if np.abs(step).max() <= 1e-8 * (1 + np.abs(at[:-1]).max()):
                _, jacobian, pull = self.equations(at[:-1], at[-1])
                return (at, jacobian, pull, count) if self.inside else None
        return None


def _bordered(jacobian: np.ndarray, pull: np.ndarray, normal: np.ndarray) -> np.ndarray:
    return np.vstack([np.column_stack([jacobian, pull]), normal])


def _tangent(jacobian: np.ndarray, pull: np.ndarray, before: np.ndarray) -> np.ndarray:
    """The curve's direction, on the side of `before`; 0 where it has none."""
    target = np.append(np.zeros(len(pull)), 1.0)
    tangent = solve_linear(_bordered(jacobian, pull, before), target)
    norm = np.linalg.norm(tangent)
    return tangent / norm if np.isfinite(norm) and norm > 0 else np.zeros_like(tangent)


def solve_linear(matrix: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The solution, the least-squares one of a singular matrix, or nan."""
    try:
        return np.linalg.solve(matrix, target)
    except np.linalg.LinAlgError:
        finite = np.isfinite(matrix).all() and np.isfinite(target).all()
        return np.linalg.lstsq(matrix, target, rcond=None)[0] if finite else np.full(len(target), np.nan)
