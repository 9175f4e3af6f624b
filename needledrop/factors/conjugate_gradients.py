"""Conjugate gradients for a batch of rows, each with its own system: one half-step of WMF.

A row's system is (D I + Y'^T (C - I) Y') x = Y'^T c over the songs that it plays (torch_wmf.py says
where it comes from). Every vector is (B, 1, k) or (B, 1, n) and every number (B, 1, 1), so that all
products are those of batches of matrices: one operation more for each batch costs as much as its
arithmetic does.

Shapes: B rows, n entries of the longest, k factors.
"""

import torch

TO_THE_END = 200
"""So many steps are taken only until every row has arrived."""
_RESIDUAL_AT_THE_END = 1e-6
_TINY = 1e-30


@torch.inference_mode()
def improve_rows(
    confidence: torch.Tensor, played: torch.Tensor, rows: torch.Tensor, own: float, n_steps: int
) -> torch.Tensor:
    """Improve the rows of a batch, (B, k) in place; return what they take off the objective.

    That is the value of 2 b^T x - x^T A x, summed over the rows. Since b^T x is the sum of c times
    the scores Y'_u x, which every step moves by what it has at hand, the objective takes no product
    of its own, and neither does the length of a step: the last step goes over Y' once, not twice.

    Args:
        confidence: (B, n) c; 0 where a row is shorter.
        played: (B, n, k) Y'_u.
        rows: (B, k) where they stand.
        own: D, what stands before the identity.
        n_steps: of conjugate gradients at most; fewer where all have arrived.
    """
    c, x = confidence[:, None], rows[:, None]
    extra = (c - 1).clamp_(min=0)  # c - 1; 0 where a row is shorter
    scores = _scores(played, x)
    residual = torch.baddbmm(x, torch.addcmul(c, extra, scores, value=-1), played, beta=-own)
    direction = residual.clone()
    squared = _dot(residual, residual)
    to_the_end = n_steps == TO_THE_END
    right = torch.bmm(c, played) if to_the_end else residual
    enough = _dot(right, right) * _RESIDUAL_AT_THE_END**2
    for step in range(n_steps):
        moved_scores = _scores(played, direction)
        weighted = extra * moved_scores
        curvature = _dot(direction, direction).mul_(own).add_(_dot(weighted, moved_scores))
        length = squared / curvature.add_(_TINY)
        x.addcmul_(length, direction)
        scores.addcmul_(length, moved_scores)
        if step + 1 == n_steps:
            break
        moved = torch.baddbmm(direction, weighted, played, beta=own)
        residual.addcmul_(length, moved, value=-1)
        before, squared = squared, _dot(residual, residual)
        if to_the_end and bool((squared <= enough).all()):
            break
        direction.mul_(squared / before.add_(_TINY)).add_(residual)
    gain = _dot(torch.addcmul(2 * c, extra, scores, value=-1), scores)
    return gain.sub_(_dot(x, x), alpha=own).sum(dtype=torch.float64)


def _scores(played: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """Return (B, 1, n), the products of (B, n, k) with a vector a row, (B, 1, k).

    The same as a product with a column each would run at a tenth of the speed (MKL's, 2 cores).
    """
    return torch.bmm(vectors, played.transpose(1, 2))


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return (B, 1, 1), the products of (B, 1, d) and (B, 1, d)."""
    return torch.bmm(a, b.transpose(1, 2))
