"""Methods that the quality benchmark compares: ours and the installed peers, each with suitable settings.

Ours and the peers that take a standard deviation of the noise get the true one. Ours also get the voxel size, as on the
command line; it matters in the thick phantom and in the diffusion volumes. Peers that assume Gaussian noise get
counts (Poisson) after the generalised Anscombe transform, and their results go through its exact unbiased inverse.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch
from quality_volumes import Case, Volume

import nlmeans
from nlmeans.methods.registry import single_methods
from nlmeans.noise import poisson
from nlmeans.noise.rician import without_rician_bias

Filter = Callable[[Volume, Any, bool], Volume]
"""Takes the noisy volume, sigma (a number or a map) and whether the noise is Rician; returns the result."""


@dataclass(frozen=True)
class Contestant:
    """Filter with the distribution that provides it, the cases that it can take and a description of its settings."""

    run: Callable[[Case], Volume]
    distribution: str = "nlmeans"
    takes: Callable[[Case], bool] = lambda case: True
    settings: str = ""

    @property
    def version(self) -> str:
        return version(self.distribution)


def contestants() -> dict[str, Contestant]:
    """Return all installed contestants by name."""
    return {
        "noisy": Contestant(lambda case: case.noisy),
        **ours(),
        **{name: peer for name, peer in PEERS.items() if installed(peer)},
    }


# --- ours


def denoise(case: Case, sigma: Any, method: str, **options: Any) -> Volume:
    if case.noise.kind == "poisson":
        options |= {"noise": "poisson", "gain": case.gain}
    if case.noise.kind == "rician":
        options["noise"] = "rician"
    if case.noisy.ndim == 4:
        options.setdefault("series", 3)
    return nlmeans.denoise(case.noisy, sigma, method=method, spacing=case.scan.spacing, **options)


def nothing_told(case: Case) -> Volume:
    return nlmeans.denoise(case.noisy, spacing=case.scan.spacing, series=3 if case.noisy.ndim == 4 else None)


def true_sigma(case: Case) -> Any:
    """Sigma as `nlmeans.denoise` takes it; None for counts, which have no read noise."""
    return None if case.noise.kind == "poisson" else case.sigma if case.sigma_map is None else case.sigma_map


def our_method(method: str) -> Contestant:
    def run(case: Case) -> Volume:
        options = {"despeckle": True} if case.noise.kind == "impulses" else {}
        return denoise(case, true_sigma(case), method, **options)

    return Contestant(run)


def with_one_sigma(case: Case, method: str) -> Volume:
    return denoise(case, case.sigma, method)


def denoise_together(case: Case, method: str) -> Volume:
    """Denoise a series with its volumes as channels, which share weights and groups; `subspace` is then MP-PCA."""
    return denoise(case, case.sigma, method, channels=3, series=None)


def algebraic(case: Case, method: str) -> Volume:
    """Denoise counts in the common way: by the Anscombe transform and its algebraic inverse."""
    stabilised = 2 * np.sqrt(case.noisy / case.gain + 3 / 8)
    return ((nlmeans.denoise(stabilised, 1.0, method=method) / 2) ** 2 - 3 / 8) * case.gain


def ours() -> dict[str, Contestant]:
    found = {name: our_method(name) for name in ("auto", *single_methods())}
    for name in ("classic", "bayes"):
        one_sigma = partial(with_one_sigma, method=name)
        found |= {
            f"{name}, estimated sigma": Contestant(
                partial(denoise, sigma=None, method=name), takes=of_kind("gaussian", "rician")
            ),
            f"{name}, estimated map": Contestant(partial(denoise, sigma="map", method=name), takes=of_kind("ramp")),
            f"{name}, one sigma": Contestant(one_sigma, takes=of_kind("ramp")),
            f"{name}, impulses left in": Contestant(one_sigma, takes=of_kind("impulses")),
            f"{name}, algebraic inverse": Contestant(partial(algebraic, method=name), takes=of_kind("poisson")),
        }
    found["default, nothing told"] = Contestant(nothing_told, takes=of_kind("gaussian", "rician", "poisson"))
    for name in ("classic", "bayes", "subspace"):
        together = partial(denoise_together, method=name)
        found[f"{name}, volumes together"] = Contestant(together, takes=a_series)
    return found


def of_kind(*kinds: str) -> Callable[[Case], bool]:
    return lambda case: case.noise.kind in kinds


# --- peers


def gaussian_filter(function: Filter, maps: bool = False) -> Callable[[Case], Volume]:
    """Adapt a filter of one volume to any case; `maps` tells whether it takes a map of sigma."""

    def run(case: Case) -> Volume:
        rician = case.noise.kind == "rician"
        sigma = case.sigma_map if maps and case.sigma_map is not None else case.sigma
        if case.noise.kind == "poisson":
            counts = torch.from_numpy(case.noisy.astype(np.float64))
            stabilised = poisson.stabilise_counts(counts, case.gain, 0.0, 0.0).numpy()
            scale = stabilised.max()
            result = function((stabilised / scale).astype(np.float32), 1 / scale, False) * scale
            return poisson.restore_counts(torch.from_numpy(result.astype(np.float64)), case.gain, 0.0, 0.0).numpy()
        if case.noisy.ndim == 4:
            return np.stack([function(one, sigma, rician) for one in np.moveaxis(case.noisy, 3, 0)], axis=3)
        return function(case.noisy, sigma, rician)

    return run


def median(noisy: Volume, sigma: float, rician: bool) -> Volume:
    from scipy.ndimage import median_filter

    return median_filter(noisy, size=3)


def nonlocal_means(noisy: Volume, sigma: float, rician: bool) -> Volume:
    from skimage.restoration import denoise_nl_means

    return denoise_nl_means(noisy, patch_size=5, patch_distance=5, h=0.6 * sigma, sigma=sigma, fast_mode=True)


def total_variation(noisy: Volume, sigma: float, rician: bool) -> Volume:
    from skimage.restoration import denoise_tv_chambolle

    weight = (0.5 if noisy.ndim == 3 else 0.8) * sigma
    return denoise_tv_chambolle(noisy, weight=weight, eps=1e-5, max_num_iter=200)


def wavelet(noisy: Volume, sigma: float, rician: bool) -> Volume:
    from skimage.restoration import cycle_spin, denoise_wavelet

    options = {"wavelet": "db2", "method": "BayesShrink", "sigma": sigma, "rescale_sigma": False}
    return cycle_spin(noisy, func=denoise_wavelet, max_shifts=1, func_kw=options, channel_axis=None)


def dipy_nlmeans(method: str, block_radius: int) -> Filter:
    def run(noisy: Volume, sigma: Any, rician: bool) -> Volume:
        from dipy.denoise.nlmeans import nlmeans as filter_volume

        return filter_volume(noisy, sigma, patch_radius=1, block_radius=block_radius, rician=rician, method=method)

    return run


def ascm(noisy: Volume, sigma: float, rician: bool) -> Volume:
    from dipy.denoise.adaptive_soft_matching import adaptive_soft_matching
    from dipy.denoise.nlmeans import nlmeans as filter_volume

    noisy = noisy.astype(np.float64)
    options = {"block_radius": ASCM_BLOCK, "rician": rician, "method": "blockwise"}
    small, large = (filter_volume(noisy, sigma, patch_radius=radius, **options) for radius in (1, 2))
    return adaptive_soft_matching(noisy, small, large, sigma)


ASCM_BLOCK = 1


def mppca(case: Case) -> Volume:
    from dipy.denoise.localpca import mppca as filter_series

    return filter_series(case.noisy, patch_radius=2, suppress_warning=True)


def ants(noisy: Volume, sigma: float, rician: bool) -> Volume:
    import ants

    model = "Rician" if rician else "Gaussian"
    return ants.denoise_image(ants.from_numpy(noisy), p=1, r=2, noise_model=model).numpy()


def simple_itk(function: Callable[[Any, Any, float], Any]) -> Filter:
    """Adapt a SimpleITK filter; `function` takes the package, the image and sigma."""

    def run(noisy: Volume, sigma: float, rician: bool) -> Volume:
        import SimpleITK

        return SimpleITK.GetArrayFromImage(function(SimpleITK, SimpleITK.GetImageFromArray(noisy), sigma))

    return run


def diffusion(itk: Any, image: Any, sigma: float) -> Any:
    return itk.GradientAnisotropicDiffusion(image, conductanceParameter=1, **steps(image, sigma))


def curvature_flow(itk: Any, image: Any, sigma: float) -> Any:
    return itk.CurvatureFlow(image, **steps(image, sigma))


def steps(image: Any, sigma: float) -> dict[str, Any]:
    """Return the longest stable time step and the best number of iterations on the phantom: 2 at 3 %, 5 at 9 %."""
    return {"timeStep": 0.5 ** (1 + image.GetDimension()), "numberOfIterations": max(1, round(60 * sigma))}


def bilateral(itk: Any, image: Any, sigma: float) -> Any:
    return itk.Bilateral(image, domainSigma=1, rangeSigma=2 * sigma)


def bm4d(noisy: Volume, sigma: float, rician: bool) -> Volume:
    from bm4d import bm4d as filter_volume

    return np.asarray(filter_volume(noisy.astype(np.float64), sigma)).reshape(noisy.shape)


@lru_cache(maxsize=1)
def bm4d_case(case: Case) -> Volume:
    """Run BM4D and keep its last result, which `bm4d_unbiased` uses too."""
    return gaussian_filter(bm4d)(case)


def bm4d_unbiased(case: Case) -> Volume:
    return without_rician_bias(torch.from_numpy(bm4d_case(case).astype(np.float64)), case.sigma).numpy()


def three_axes(case: Case) -> bool:
    return case.noisy.ndim >= 3


def a_series(case: Case) -> bool:
    return case.noisy.ndim == 4


def one_volume(case: Case) -> bool:
    """Check for a single volume: for a series, BM4D would take seconds for each of its tiny volumes."""
    return case.noisy.ndim == 3


def unbiased(case: Case) -> bool:
    return one_volume(case) and case.noise.kind == "rician"


PEERS = {
    "median": Contestant(gaussian_filter(median), "scipy", settings="3 voxels along each axis"),
    "scikit-image NLM": Contestant(
        gaussian_filter(nonlocal_means), "scikit-image", settings="patch 5, distance 5, h = 0.6 σ"
    ),
    "scikit-image TV": Contestant(
        gaussian_filter(total_variation), "scikit-image", settings="Chambolle, weight 0.5 σ (2D: 0.8 σ)"
    ),
    "scikit-image wavelet": Contestant(
        gaussian_filter(wavelet), "scikit-image", settings="db2, BayesShrink, averaged over 2 shifts along each axis"
    ),
    "DIPY classic": Contestant(
        gaussian_filter(dipy_nlmeans("classic", 3), maps=True),
        "dipy",
        three_axes,
        "patch radius 1, block radius 3; takes the map of sigma if there is one",
    ),
    "DIPY blockwise": Contestant(
        gaussian_filter(dipy_nlmeans("blockwise", 3)), "dipy", three_axes, "patch radius 1, block radius 3"
    ),
    "DIPY ASCM": Contestant(
        gaussian_filter(ascm), "dipy", three_axes, f"blockwise, patch radii 1 and 2, block radius {ASCM_BLOCK}"
    ),
    "DIPY MP-PCA": Contestant(mppca, "dipy", a_series, "patch radius 2; estimates the noise itself"),
    "ANTs": Contestant(
        gaussian_filter(ants), "antspyx", three_axes, "DenoiseImage, p 1, r 2; estimates the noise locally"
    ),
    "SimpleITK diffusion": Contestant(
        gaussian_filter(simple_itk(diffusion)),
        "SimpleITK",
        settings="GradientAnisotropicDiffusion, conductance 1, 60 σ iterations (for a range of 1)",
    ),
    "SimpleITK curvature flow": Contestant(
        gaussian_filter(simple_itk(curvature_flow)), "SimpleITK", settings="60 σ iterations (for a range of 1)"
    ),
    "SimpleITK bilateral": Contestant(
        gaussian_filter(simple_itk(bilateral)), "SimpleITK", settings="domain 1 voxel, range 2 σ"
    ),
    "BM4D": Contestant(bm4d_case, "bm4d", one_volume, "default settings; non-commercial licence"),
    "BM4D, bias removed": Contestant(bm4d_unbiased, "bm4d", unbiased, "corrected by our inverse of the first moment"),
}


def installed(contestant: Contestant) -> bool:
    try:
        return bool(contestant.version)
    except PackageNotFoundError:
        return False
