"""GPU kernel for eigenvectors of symmetric matrices, in Triton: Jacobi's method, one program per matrix.

A round rotates all pairs of a round-robin tournament at once, and a sweep lets every index meet every other one. A
rotation sets the element between its two indices to 0. Indices beyond the size of a matrix, up to a power of two, have
zeros and are never rotated.

References:
    G. H. Golub, C. F. Van Loan, "Matrix Computations", 4th edition, 2013, section 8.5.
"""

from __future__ import annotations

# mypy: ignore-errors
# (Triton has no types, and its language shares only the syntax of Python.)
import triton
import triton.language as tl

MOST_SWEEPS = tl.constexpr(12)
"""Sweeps after which the method ends at the latest. It converges quadratically: 16 rows take 4 or 5, 64 take 5 to 8."""


@triton.jit
def opponents(k, turn, SIZE: tl.constexpr):
    """Return the index that each index meets in this turn of SIZE − 1."""
    others = (turn + SIZE - 1 - k) % (SIZE - 1)
    last = turn * (SIZE // 2) % (SIZE - 1)  # meets itself among the others
    return tl.where(k == SIZE - 1, last, tl.where(others == k, SIZE - 1, others))


@triton.jit
def angles(matrix, k, other):
    """Return 1 − cosine for each index, and the factor of its opponent, which is plus or minus the sine.

    The cosine of many small angles rounds to 1, which would let the vectors grow.
    """
    row, column = k[:, None], k[None, :]
    along_rows = tl.sum(tl.where(row == column, matrix, 0.0), 1)
    own = tl.sum(tl.where(row == column, matrix, 0.0), 0)
    others = tl.sum(tl.where(row == other[None, :], along_rows[:, None], 0.0), 0)
    # rounding makes the matrix a little unsymmetric, but both indices of a pair must turn by the same angle
    between = tl.sum(tl.where(row == other[None, :], matrix, 0.0), 0)
    between = between + tl.sum(tl.where(column == other[:, None], matrix, 0.0), 1)
    sign = tl.where(k < other, 1.0, -1.0)
    rotated = tl.abs(between) > 1e-35  # a GPU may take smaller numbers for 0 when it divides
    slope = sign * (others - own) / tl.where(rotated, between, 1.0)
    tangent = tl.where(slope >= 0, 1.0, -1.0) / (tl.abs(slope) + tl.sqrt(1 + slope * slope))
    tangent = tl.where(rotated, tangent, 0.0)
    cosine = 1 / tl.sqrt(1 + tangent * tangent)
    sine = tangent * cosine
    return sine * sine / (1 + cosine), -sign * sine


@triton.jit
def rotated_by(values, others, less, factor):
    """Turn values towards those of the opponents of their indices."""
    return values + (others * factor - values * less)


@triton.jit
def eigenvectors_kernel(
    matrices,  # (matrices, size, size)
    values,  # (matrices, size)
    vectors,  # (matrices, size, size)
    size,
    tolerance,  # sum of the elements beside the diagonal at which the method ends, relative to that of all
    SIZE: tl.constexpr,  # rounded up to a power of two
):
    k = tl.arange(0, SIZE)
    row, column = k[:, None], k[None, :]
    first = tl.program_id(0).to(tl.int64) * size
    inside = (row < size) & (column < size)
    places = (first + row) * size + column
    matrix = tl.load(matrices + places, mask=inside, other=0.0)
    turned = (row == column).to(tl.float32)
    enough = tolerance * tl.sum(tl.abs(matrix))
    left = tl.sum(tl.where(row == column, 0.0, tl.abs(matrix)))
    sweep = 0
    while (left > enough) & (sweep < MOST_SWEEPS):
        for turn in range(SIZE - 1):
            other = opponents(k, turn, SIZE)
            less, factor = angles(matrix, k, other)
            there = tl.zeros([SIZE, SIZE], tl.int32) + other[None, :]
            matrix = rotated_by(matrix, tl.gather(matrix, there, 1), less[None, :], factor[None, :])
            turned = rotated_by(turned, tl.gather(turned, there, 1), less[None, :], factor[None, :])
            there = tl.zeros([SIZE, SIZE], tl.int32) + other[:, None]
            matrix = rotated_by(matrix, tl.gather(matrix, there, 0), less[:, None], factor[:, None])
        left = tl.sum(tl.where(row == column, 0.0, tl.abs(matrix)))
        sweep += 1
    tl.store(values + first + k, tl.sum(tl.where(row == column, matrix, 0.0), 0), mask=k < size)
    tl.store(vectors + places, turned, mask=inside)
