"""Command line, MONAI and napari give the numbers of Python for any image and settings."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from nlmeans import cli, denoise
from nlmeans.methods.registry import METHODS, single_methods
from tests.nlmeans.volumes import NIFTI
from tests.properties.strategies import Floats, images, seeds

SIGMA = 0.05
SMALL: dict[str, Any] = {"voxels": 400, "longest": 16}
METHOD = st.sampled_from(["classic", "dct", "stochastic", "wiener"])


@given(
    volume=images(**SMALL),
    dtype=st.sampled_from(["u1", "i2", "u2", "i4", "f4", "f8", ">i2", ">f4"]),
    method=METHOD,
    seed=seeds,
    options=st.sampled_from(["", "--float", "--noise rician", "--despeckle", "--search-radius 1", "--strength 0.6"]),
)
def test_the_command_line_gives_the_numbers_of_python(
    volume: Floats, dtype: str, method: str, seed: int, options: str
) -> None:
    data = np.clip(120 * volume, 0, 120).astype(dtype)
    random = np.random.default_rng(seed)
    affine = np.diag([*random.uniform(0.5, 4, 3), 1]).astype(np.float32)  # as NIfTI stores it
    affine[:3, 3] = random.uniform(-100, 100, 3)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.nii"), Path(folder, "out.nii.gz")
        image = NIFTI.Nifti1Image(data, affine, dtype=data.dtype)
        NIFTI.save(image, source)
        arguments = f"denoise {source} {target} --sigma 6 --method {method} --seed 5 --voxel-radii {options}"
        result = CliRunner().invoke(cli.main, arguments.split())
        assert result.exit_code == 0, result.output
        found = NIFTI.load(target)
        values = np.asarray(found.dataobj)
        record = json.loads(Path(folder, "out.json").read_text())
        left = sorted(path.name for path in Path(folder).iterdir())
    settings: dict[str, Any] = {"method": method, "seed": 5}
    settings |= {"noise": "rician"} if "rician" in options else {}
    settings |= {"despeckle": True} if "despeckle" in options else {}
    settings |= {"search_radius": 1} if "search" in options else {}
    settings |= {"strength": 0.6} if "strength" in options else {}
    settings |= {"dtype": "float32"} if "float" in options else {}
    expected = denoise(data, 6.0, **settings)
    np.testing.assert_array_equal(values, expected.reshape(values.shape))
    assert values.dtype.newbyteorder("=") == expected.dtype.newbyteorder("=")
    np.testing.assert_array_equal(found.affine, image.affine)
    assert found.header.get_zooms() == image.header.get_zooms()
    assert record["settings"]["sigma"] == 6
    assert record["settings"]["strength"] == settings.get("strength", 1)
    assert left == ["in.nii", "out.json", "out.nii.gz"]


@given(
    volume=images(**SMALL),
    channels=st.integers(1, 3),
    dtype=st.sampled_from(["u1", "i2", "f4", "f8"]),
    method=METHOD,
    together=st.booleans(),
    seed=seeds,
)
def test_the_transform_gives_the_numbers_of_python(
    volume: Floats, channels: int, dtype: str, method: str, together: bool, seed: int
) -> None:
    monai = pytest.importorskip("monai_transforms")
    data = np.stack([np.clip((120 - 20 * c) * volume, 0, 120) for c in range(channels)]).astype(dtype)
    before, mask = data.copy(), np.random.default_rng(seed).random(volume.shape) < 0.7
    result = monai.NonLocalMeans(sigma=6.0, method=method, channel_wise=not together, seed=2)(data, mask=mask)
    axis: dict[str, Any] = {"channels" if together else "series": 0}
    expected = denoise(data, 6.0, method=method, mask=mask, seed=2, **axis)
    np.testing.assert_array_equal(np.asarray(result), expected)
    np.testing.assert_array_equal(data, before)
    dictionary = monai.NonLocalMeansd("image", sigma=6.0, method=method, channel_wise=not together, seed=2)
    whole = dictionary({"image": data, "other": 3})
    assert whole["other"] == 3
    np.testing.assert_array_equal(np.asarray(whole["image"]), denoise(data, 6.0, method=method, seed=2, **axis))


@given(
    volume=images(kinds=("noise", "steps", "ramp", "zeros"), voxels=800, longest=24),
    dtype=st.sampled_from(["u1", "i2", "f4", "f8"]),
    method=st.sampled_from(sorted(single_methods())),
    sigma=st.sampled_from([None, 6.0]),
    h=st.sampled_from([None, 0.8]),
    strength=st.sampled_from([1.0, 0.6, 2.0]),
    data=st.data(),
)
def test_napari_gives_the_numbers_of_python_and_any_box_of_them(
    volume: Floats, dtype: str, method: str, sigma: float | None, h: float | None, strength: float, data: Any
) -> None:
    pytest.importorskip("napari")
    from napari.layers import Image

    from napari_nlm.denoising import Denoising
    from napari_nlm.layer_source import LayerSource
    from napari_nlm.parameters import Parameters
    from napari_nlm.surveys import Surveys

    values = np.clip(120 * volume, 0, 120).astype(dtype)
    before = values.copy()
    source = LayerSource.of(Image(values))
    parameters = Parameters(method=method, sigma=sigma, h=h, strength=strength)
    denoising = Denoising(source, parameters, None, Surveys(source, None))
    whole = denoising.denoised((), None, lambda fraction: None)
    unit = denoising.survey(()).facts.unit
    wanted = {"strength": strength} | (
        {} if h is None or not unit or "h" in METHODS[method].without else {"h": h * unit}
    )
    expected = denoise(values, sigma, method=method, spacing=(1,) * values.ndim, **wanted)
    tolerance = 1e-3 * max(unit, 1e-3) + (1 if np.dtype(dtype).kind in "iu" else 0)
    np.testing.assert_allclose(whole.astype(float), expected.astype(float), atol=tolerance)
    starts = [data.draw(st.integers(0, n - 1)) for n in values.shape]
    box = tuple(slice(a, data.draw(st.integers(a + 1, n))) for a, n in zip(starts, values.shape, strict=True))
    shown, after = denoising.before_and_after(box, lambda fraction: None)
    np.testing.assert_array_equal(shown, values[box])
    tolerance = (2e-2 if method == "linear" else 2e-3) * max(unit, 1e-3)
    tolerance += 1 if np.dtype(dtype).kind in "iu" else 0
    np.testing.assert_allclose(after.astype(float), whole[box].astype(float), atol=tolerance)
    np.testing.assert_array_equal(values, before)
