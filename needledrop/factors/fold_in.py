"""The factors of one new user or song, solved exactly against fixed factors of the other side.

Half a step of alternating least squares (Hu, Koren and Volinsky, eq. 4) for the given rows alone:

    x_u = (Y^T Y + Y^T (C^u - I) Y + lambda I)^-1 Y^T C^u p_u

The same formula, with users and songs exchanged, folds in a song.
"""

import numpy as np
from implicit.cpu.als import AlternatingLeastSquares
from numpy.typing import NDArray
from scipy import sparse
from threadpoolctl import threadpool_limits

from needledrop.errors import ShapeMismatch


def fold_in_rows(
    confidence_rows: sparse.csr_matrix, fixed_factors: NDArray[np.float32], regularization: float
) -> NDArray[np.float32]:
    """Solve new rows by Cholesky, in float64.

    Args:
        confidence_rows: (n, I) csr, c_ui of the played pairs; absent entries mean c_ui = 1.
        fixed_factors: (I, k) factors of the other side, left as they are.
        regularization: lambda, the one that the fixed factors were learned with.

    Returns:
        (n, k) float32; a row without plays is zero, which is its exact solution.

    Raises:
        ShapeMismatch: the rows and the fixed factors speak of different numbers of columns.
    """
    n_rows, n_columns = confidence_rows.shape
    if fixed_factors.ndim != 2 or fixed_factors.shape[0] != n_columns:
        raise ShapeMismatch(
            f"expected fixed factors of shape ({n_columns}, k), got {fixed_factors.shape}; "
            "restrict the plays to the songs that have factors"
        )
    # implicit has threads of its own; with the math library's as well, a row of 400 factors takes
    # 67 processor-milliseconds in place of 4.
    with threadpool_limits(1, "blas"):
        solver = AlternatingLeastSquares(
            factors=fixed_factors.shape[1],
            regularization=regularization,
            alpha=1.0,  # c_ui itself is stored
            dtype=np.float64,
            num_threads=0,
        )
        solver.item_factors = np.ascontiguousarray(fixed_factors, dtype=np.float64)
        rows: NDArray[np.float64] = solver.recalculate_user(np.arange(n_rows), confidence_rows)
    return rows.astype(np.float32)


def fold_in_liked(
    gram: NDArray[np.float64],
    liked: NDArray[np.float32],
    is_in_gram: NDArray[np.bool_],
    confidence: float,
    regularization: float,
) -> NDArray[np.float32]:
    """Solve one listener from a few liked songs, as :func:`fold_in_rows`, without all the others.

    Args:
        gram: (k, k), Y^T Y over the songs that count as not played unless they are liked.
        liked: (n, k) factors of the liked songs.
        is_in_gram: (n,) whether ``gram`` counts the song.
        confidence: c of a liked song.
        regularization: lambda.

    Returns:
        (k,) float32; zero for no songs.
    """
    rows = liked.astype(np.float64)
    weights = confidence - is_in_gram.astype(np.float64)
    system = gram + (rows.T * weights) @ rows + regularization * np.eye(len(gram))
    solved: NDArray[np.float64] = np.linalg.solve(system, confidence * rows.sum(axis=0))
    return solved.astype(np.float32)
