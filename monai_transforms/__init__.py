"""MONAI transforms over the `nlmeans` engine.

Each comes as an array transform and as a dictionary transform, ``NonLocalMeans`` and ``NonLocalMeansd``, which is also
called ``NonLocalMeansD`` and ``NonLocalMeansDict``. All take and return channel-first images, 2D or 3D.
"""

from monai_transforms.blur import (
    LocalGaussianSmooth,
    LocalGaussianSmoothd,
    LocalGaussianSmoothD,
    LocalGaussianSmoothDict,
)
from monai_transforms.noise import (
    EstimateNoise,
    EstimateNoised,
    EstimateNoiseD,
    EstimateNoiseDict,
    NoiseStabilise,
    NoiseStabilised,
    NoiseStabiliseD,
    NoiseStabiliseDict,
)
from monai_transforms.nonlocal_means import (
    NonLocalMeans,
    NonLocalMeansd,
    NonLocalMeansD,
    NonLocalMeansDict,
    RandNonLocalMeans,
    RandNonLocalMeansd,
    RandNonLocalMeansD,
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
