"""What other plugins and scripts can call: an image in, an image out, no window needed."""

from __future__ import annotations

from typing import cast

from napari.types import ImageData

import nlmeans


def denoise_image(
    image: ImageData, method: str = "auto", strength: float = 1.0, modality: str | None = None
) -> ImageData:
    """Denoise an image or a volume. The noise is found in it.

    Other plugins find the command as ``nlmeans.denoise_image``. It works until it is done: call it in a thread, such as
    napari's ``thread_worker``, so that the window stays alive.

    Args:
        image: (H, W) or (D, H, W), numbers of any real type; for more axes, use `nlmeans.denoise`, which can be told
            what they are.
        method: ``"auto"``, ``"bayes"``, ``"best"``, or another one of ``nlmeans.METHODS``.
        strength: how strong the noise is taken to be, relative to what was found.
        modality: what made the image, as for `nlmeans.denoise`: ``"MR"``, ``"CT"``, ``"GM"`` (microscopy), ``"PT"``.

    Returns:
        The denoised image, with the shape and type of the image.

    Raises:
        ValueError, TypeError: the image or an argument does not fit; the text says which, and what to do.

    Example:
        >>> import numpy as np
        >>> noisy = 100 + 5 * np.random.default_rng(0).standard_normal((32, 32))
        >>> bool(denoise_image(noisy, method="classic").std() < 0.5 * noisy.std())
        True
    """
    return cast(ImageData, nlmeans.denoise(image, method=method, strength=strength, modality=modality))
