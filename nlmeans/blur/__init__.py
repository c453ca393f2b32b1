"""Blur with one Gaussian, or with a Gaussian per voxel, differentiable with respect to image and covariance."""

from nlmeans.blur.covariance import COVARIANCE_TYPES, covariance_to_log_cholesky, log_cholesky_to_covariance
from nlmeans.blur.filters import PADDINGS, gaussian_blur, gaussian_kernel, local_gaussian_blur
from nlmeans.blur.modules import GaussianBlur, LocalGaussianBlur

__all__ = [
    "COVARIANCE_TYPES",
    "PADDINGS",
    "GaussianBlur",
    "LocalGaussianBlur",
    "covariance_to_log_cholesky",
    "gaussian_blur",
    "gaussian_kernel",
    "local_gaussian_blur",
    "log_cholesky_to_covariance",
]
