"""MONAI transforms over the `nlmeans` engine.

Each comes as an array transform and as a dictionary transform, ``NonLocalMeans`` and ``NonLocalMeansd``, which is also
called ``NonLocalMeansD`` and ``NonLocalMeansDict``. All take and return channel-first images, 2D or 3D.
"""

from monai_transforms.blur import (
    LocalGaussianSmooth,
    LocalGaussianSmoothD,
    LocalGaussianSmoothd,
    LocalGaussianSmoothDict,
)
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

__all__ = [
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
    "RandNonLocalMeans",
    "RandNonLocalMeansD",
    "RandNonLocalMeansDict",
    "RandNonLocalMeansd",
]
