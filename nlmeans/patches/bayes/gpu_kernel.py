"""GPU kernel of non-local Bayes, in Triton: one program filters one group of patches and adds it to the sums.

The algorithm is that of `cpu_kernel`. Q and P are the noisy patches and those of the guide without their means, and
A = P Pᵀ + ρI. Elimination of [A | P] gives W = L⁻¹P and the pivots d, where A = L·diag(d)·Lᵀ. With V = d^(−½)·W::

    S = Q Vᵀ                 ‖S‖² = ⟨F, Q⟩
    F = S V                  f = ‖V‖², the degrees of freedom

Smoothing across patches needs A⁻¹ = JᵀJ with J = d^(−½)·L⁻¹. Column i of A is 0 below its diagonal after step i of the
elimination, and column i of L⁻¹ is 0 there before it. So the same registers hold first A and then L⁻¹·diag(d), whose
diagonal is the pivots, as that of A is by then::

    D = −ρ Jᵀ (J F)

The matrices of a group stay in registers, padded with zeros to BLOCK × BLOCK numbers, at most 64 × 64. Registers have
no index: a row is read by a sum over all rows times 0 or 1, a slice of a matrix by a sum over all slices. The sums over
the volume are of integers, which do not depend on the order in which programs end.
"""

from __future__ import annotations

# mypy: ignore-errors
# (Triton has no types, and its language shares only the syntax of Python.)
import triton
import triton.language as tl

from nlmeans.patches.kernel_constants import ACROSS_FREEDOM, LEAST_DETERMINANT, TINY

TRITON_TINY = tl.constexpr(TINY)
TRITON_ACROSS_FREEDOM = tl.constexpr(ACROSS_FREEDOM)
TRITON_LEAST_DETERMINANT = tl.constexpr(LEAST_DETERMINANT)


@triton.jit
def sliced_product(a, b, USED: tl.constexpr):
    """Multiply two matrices in full precision, slice by slice: whole matrices would not fit into the registers.

    Columns of `a` and rows of `b` from USED on are 0.
    """
    ROWS: tl.constexpr = a.shape[0]
    SLICES: tl.constexpr = a.shape[1] // 16
    COLUMNS: tl.constexpr = b.shape[1]
    a_slices, b_slices = tl.reshape(a, [ROWS, SLICES, 16]), tl.reshape(b, [SLICES, 16, COLUMNS])
    number = tl.arange(0, SLICES)
    result = tl.zeros([ROWS, COLUMNS], a.dtype)
    for i in range((USED + 15) // 16):
        left = tl.sum(tl.where((number == i)[None, :, None], a_slices, 0.0), 1)
        right = tl.sum(tl.where((number == i)[:, None, None], b_slices, 0.0), 0)
        result += tl.dot(left, right, input_precision="ieee", out_dtype=a.dtype)
    return result


@triton.jit
def corners_of(corners, group, k, COUNT: tl.constexpr):
    """Read the corners of a group. They are read again where places are needed again, which saves their registers."""
    return tl.load(corners + group * COUNT + k, mask=k < COUNT, other=0, volatile=True)


@triton.jit
def centred(volume, places, inside, COUNT: tl.constexpr, DTYPE: tl.constexpr):
    """Read the patches of a group without their mean, and the mean."""
    patches = tl.load(volume + places, mask=inside, other=0.0).to(DTYPE)
    mean = tl.sum(patches, 0) / COUNT
    return tl.where(inside, patches - mean[None, :], 0.0), mean


@triton.jit
def eliminated(system, rows, least, COUNT: tl.constexpr, INVERSE: tl.constexpr):
    """Return W of [A | P], the pivots, and the system. In exact arithmetic, no pivot is less than `least`.

    With INVERSE, the system has L⁻¹·diag(d) below its diagonal.
    """
    k = tl.arange(0, system.shape[0])
    both = tl.join(system, rows)
    for i in range(COUNT):
        chosen = (k == i).to(system.dtype)
        lines = tl.sum(both * chosen[:, None, None], 0)
        line, row = tl.split(lines)
        pivot = tl.maximum(tl.sum(line * chosen), least)
        factor = tl.where(k > i, line * (1 / pivot), 0.0)  # A is symmetric: its row is its column
        if INVERSE:
            lines = tl.join(tl.where(k == i, 2 * pivot, line), row)  # leaves −factor·pivot in column i, in place of 0
        both -= factor[:, None, None] * lines[None, :, :]
    system, rows = tl.split(both)
    pivots = tl.maximum(tl.sum(tl.where(k[:, None] == k[None, :], system, 0.0), 1), least)
    return rows, pivots, system


@triton.jit
def half_inverse(system, scale):
    """Return J from the system of `eliminated` and d^(−½)."""
    k = tl.arange(0, system.shape[0])
    row, column = k[:, None], k[None, :]
    below = system * scale[:, None] * (scale * scale)[None, :]
    return tl.where(row > column, below, tl.where(row == column, scale[:, None], 0.0))


@triton.jit
def smoothed_across(estimate, detail, half, ridge, variance, freedom, ff, fq, COUNT: tl.constexpr):
    """Return F + t·D of `nl_bayes.filter_group`, its degrees of freedom, ⟨F, F⟩ and ⟨F, Q⟩."""
    forward = sliced_product(half, estimate, COUNT)
    solved = sliced_product(tl.trans(half), forward, COUNT)
    scale = -ridge.to(tl.float64)
    df = scale * tl.sum(forward * forward).to(tl.float64)
    dq = scale * tl.sum(solved * detail).to(tl.float64)
    dd = scale * scale * tl.sum(solved * solved).to(tl.float64)
    saved = freedom * (COUNT - 1 - freedom)
    worth = dq - df + TRITON_ACROSS_FREEDOM * variance.to(tl.float64) * saved
    share = tl.minimum(tl.maximum(worth / (dd + TRITON_TINY), 0.0), 1.0)
    estimate += (share * scale).to(estimate.dtype) * solved
    freedom -= share * saved / max(COUNT - 1, 1)
    return estimate, freedom, ff + share * (2 * df + share * dd), fq + share * dq


@triton.jit
def filtered_mean(noisy_mean, guide_mean, variance, matrix, spectrum):
    """Filter the mean patch in the DCT domain; return Σ gain² too. See `nl_bayes.filter_mean_patches`."""
    u = tl.arange(0, matrix.shape[0])
    energy = tl.sum(matrix * guide_mean[None, :], 1)
    energy = energy * energy
    gain = energy / tl.maximum(energy + variance * tl.load(spectrum + u), 1e-30)
    gain = tl.where(u == 0, 1.0, gain)
    coefficients = gain * tl.sum(matrix * noisy_mean[None, :], 1)
    return tl.sum(matrix * coefficients[:, None], 0), tl.sum(gain * gain)


@triton.jit
def shares_of_least_risk(ff, fq, qq, f_noise, q_noise):
    """Compute a and b of one group; see `nl_bayes.least_risk`."""
    held = ff + f_noise + TRITON_TINY
    determinant = tl.maximum(held * qq - fq * fq, TRITON_LEAST_DETERMINANT * held * qq + TRITON_TINY)
    kept = tl.minimum(tl.maximum((held * (qq - q_noise) - fq * fq) / determinant, 0.0), 1.0)
    return tl.minimum(tl.maximum((fq - kept * fq) / held, 0.0), 1.5), kept


@triton.jit
def add_integers(sums, places, values, mask, per_unit):
    """Add values to sums of integers, rounded to multiples of the unit."""
    rounded = tl.floor(values.to(tl.float64) * per_unit + 0.5).to(tl.int64)
    tl.atomic_add(sums + places, rounded, mask=mask, sem="relaxed")


@triton.jit(do_not_specialize=["plane", "line"], do_not_specialize_on_alignment=["noisy", "guide", "total", "weights"])
def filter_groups_kernel(
    noisy,  # volume, flat
    guide,
    corners,  # (groups, COUNT)
    variances,  # of the noise: one number, or one per patch at its corner
    basis,  # DCT of a patch, (BLOCK, BLOCK); its type is that in which groups are filtered
    spectrum,  # variance of the noise in each coefficient, relative to its mean, (BLOCK,)
    whiten,  # (BLOCK, BLOCK), if the noise is correlated
    colour,
    taper,  # (BLOCK,)
    steep,  # (groups,): whether a group is too steep for float32
    total,  # volume of integers
    weights,  # volume of integers
    per_unit,  # integers of `total` per 1
    per_weight,  # integers of `weights` per 1
    strength,
    steepest,
    least_variance,
    plane,  # voxels in a plane of the volume
    line,  # voxels in a line of the volume
    EXACT: tl.constexpr,  # filter the steep groups, instead of marking them and filtering the others
    ACROSS: tl.constexpr,  # also smooth across the patches of a group
    VARYING: tl.constexpr,  # the variance differs from patch to patch
    CORRELATED: tl.constexpr,
    SIZE_Y: tl.constexpr,
    SIZE_X: tl.constexpr,
    VOXELS: tl.constexpr,
    COUNT: tl.constexpr,
    BLOCK: tl.constexpr,  # the larger of COUNT and VOXELS, rounded up to a power of two, at least 16
):
    DTYPE: tl.constexpr = basis.dtype.element_ty
    group = tl.program_id(0).to(tl.int64)
    if EXACT:
        marked = tl.load(steep + group)
        if marked == 0:
            return
    k = tl.arange(0, BLOCK)
    at = corners_of(corners, group, k, COUNT)
    offset = (k // (SIZE_Y * SIZE_X) * plane + k // SIZE_X % SIZE_Y * line + k % SIZE_X)[None, :]
    inside = (k < COUNT)[:, None] & (k < VOXELS)[None, :]
    variance = tl.sum(tl.load(variances + at, mask=k < COUNT, other=0.0)) / COUNT if VARYING else tl.load(variances)
    noise = variance * (COUNT - 1)

    oracle, guide_mean = centred(guide, at[:, None] + offset, inside, COUNT, DTYPE)
    square = k[:, None] * BLOCK + k[None, :]
    if CORRELATED:
        oracle = sliced_product(oracle, tl.load(whiten + square), VOXELS)
    if not EXACT:
        contrast = tl.sum(oracle * oracle)
        is_steep = contrast > steepest * tl.maximum(noise, TRITON_TINY)
        tl.store(steep + group, is_steep.to(tl.int8))
        if is_steep:
            return
    gram = sliced_product(oracle, tl.trans(oracle), VOXELS)
    diagonal = k[:, None] == k[None, :]
    trace = tl.sum(tl.where(diagonal, gram, 0.0))
    rounding: tl.constexpr = 2.0**-52 if EXACT else 2.0**-23
    ridge = noise * strength + 2 * rounding * trace + 1e-12
    rows, pivots, system = eliminated(gram + tl.where(diagonal, ridge, 0.0), oracle, ridge, COUNT, ACROSS)
    scale = 1 / tl.sqrt(pivots)
    rows = rows * scale[:, None]

    at = corners_of(corners, group, k, COUNT)
    detail, noisy_mean = centred(noisy, at[:, None] + offset, inside, COUNT, DTYPE)
    if CORRELATED:
        detail = sliced_product(detail, tl.load(whiten + square), VOXELS)
    shares = sliced_product(detail, tl.trans(rows), VOXELS)
    estimate = sliced_product(shares, rows, COUNT)

    freedom = tl.sum(rows * rows).to(tl.float64)
    fq = tl.sum(shares * shares).to(tl.float64)
    ff = tl.sum(estimate * estimate).to(tl.float64)
    qq = tl.sum(detail * detail).to(tl.float64)
    if ACROSS:
        half = half_inverse(system, scale)
        estimate, freedom, ff, fq = smoothed_across(estimate, detail, half, ridge, variance, freedom, ff, fq, COUNT)
    wide_noise = noise.to(tl.float64)
    amplitude, kept = shares_of_least_risk(ff, fq, qq, wide_noise * freedom, wide_noise * VOXELS)

    mean, mean_freedom = filtered_mean(noisy_mean, guide_mean, variance / COUNT, tl.load(basis + square), spectrum)
    freedom = (amplitude * freedom + kept * VOXELS) * ((COUNT - 1) / COUNT) + mean_freedom / COUNT
    weight = 1 / (freedom * tl.maximum(variance.to(tl.float64), least_variance))

    patches = amplitude.to(DTYPE) * estimate + kept.to(DTYPE) * detail
    if CORRELATED:
        patches = sliced_product(patches, tl.load(colour + square), VOXELS)
    values = (patches + mean[None, :]) * (tl.load(taper + k) * weight.to(DTYPE))[None, :]
    at = corners_of(corners, group, k, COUNT)
    add_integers(total, at[:, None] + offset, values, inside, per_unit)
    add_integers(weights, at, tl.zeros([BLOCK], DTYPE) + weight.to(DTYPE), k < COUNT, per_weight)
