"""MONAI transforms over the `nlmeans` engine.

Each transform has an array form and a dictionary form, such as ``NonLocalMeans`` and ``NonLocalMeansd``. As in MONAI,
the dictionary form has two aliases, ``NonLocalMeansD`` and ``NonLocalMeansDict``. All transforms take and return
channel-first images, (C, H, W) or (C, D, H, W). Metrics measure the noise of batches.
"""

from monai_transforms.blur import (
    LocalGaussianSmooth,
    LocalGaussianSmoothD,
    LocalGaussianSmoothd,
    LocalGaussianSmoothDict,
)
from monai_transforms.matched_noise import (
    RandMatchNoise,
    RandMatchNoiseD,
    RandMatchNoised,
    RandMatchNoiseDict,
)
from monai_transforms.metrics import CNRMetric, SigmaMetric, SNRMetric
from monai_transforms.noise import (
    EstimateNoise,
    EstimateNoiseD,
    EstimateNoised,
    EstimateNoiseDict,
    NoiseStabilise,
    NoiseStabiliseD,
    NoiseStabilised,
    NoiseStabiliseDict,
)
from monai_transforms.nonlocal_means import (
    NonLocalMeans,
    NonLocalMeansD,
    NonLocalMeansd,
    NonLocalMeansDict,
    RandNonLocalMeans,
    RandNonLocalMeansD,
    RandNonLocalMeansd,
    RandNonLocalMeansDict,
)
from monai_transforms.scanner_noise import (
    RandScannerNoise,
    RandScannerNoiseD,
    RandScannerNoised,
    RandScannerNoiseDict,
)

__all__ = [
    "CNRMetric",
    "EstimateNoise",
    "EstimateNoiseD",
    "EstimateNoiseDict",
    "EstimateNoised",
    "LocalGaussianSmooth",
    "LocalGaussianSmoothD",
    "LocalGaussianSmoothDict",
    "LocalGaussianSmoothd",
    "NoiseStabilise",
    "NoiseStabiliseD",
    "NoiseStabiliseDict",
    "NoiseStabilised",
    "NonLocalMeans",
    "NonLocalMeansD",
    "NonLocalMeansDict",
    "NonLocalMeansd",
    "RandMatchNoise",
    "RandMatchNoiseD",
    "RandMatchNoiseDict",
    "RandMatchNoised",
    "RandNonLocalMeans",
    "RandNonLocalMeansD",
    "RandNonLocalMeansDict",
    "RandNonLocalMeansd",
    "RandScannerNoise",
    "RandScannerNoiseD",
    "RandScannerNoiseDict",
    "RandScannerNoised",
    "SNRMetric",
    "SigmaMetric",
]
