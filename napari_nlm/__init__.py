"""The napari plugin over the `nlmeans` engine."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_nlm.functions import denoise_image

__all__ = ["denoise_image"]


def __getattr__(name: str) -> Any:
    """Import what is public when it is first used: napari finds the manifest without any of it."""
    if name == "denoise_image":
        from napari_nlm.functions import denoise_image

        return denoise_image
    raise AttributeError(f"module 'napari_nlm' has no attribute {name!r}")
