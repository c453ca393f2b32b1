"""The four doors: a file goes in, and what comes out is compared with what the engine makes of its values alone."""

from __future__ import annotations

import contextlib
import json
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner

import nlmeans
from nlmeans import cli
from nlmeans.files.formats import registry
from tests.nlmeans import zarrs
from tests.nlmeans.scans import contents, header_on_disk
from tests.real_files.cases import Built, Denoised, Foreign, Outcome, Refused, Values

METHOD = "wiener"
"""A method that knows correlated noise, and whose result does not depend on which way the axes go."""


def level_of(values: Values) -> float:
    """A sigma that changes the values and does not flatten them."""
    known = np.abs(values[np.isfinite(values)].astype(np.result_type(values.dtype, "float64")))
    share = 1.0 if values.dtype == bool else 0.2  # truth values are rounded to what they were by less
    return float(share * known.std()) if known.size and np.ptp(known) > 0 else 1.0


def denoised(
    values: Values, spacing: Sequence[float] | None, noise: Sequence[nlmeans.NoiseModel] | None = None
) -> Values:
    """What the engine makes of values alone.

    Args:
        values: (X, Y), (X, Y, Z) or (X, Y, Z, T).
        spacing: voxel size.
        noise: the noise of each volume; None for `level_of`.
    """
    known = tuple(spacing) if spacing is not None and all(size > 0 for size in spacing) else None
    how: dict[str, Any] = {"method": METHOD, "spacing": known, "device": "cpu"}
    if noise is None:
        return np.asarray(nlmeans.denoise(values, level_of(values), series=3 if values.ndim == 4 else None, **how))
    if np.iscomplexobj(values):  # the levels of real and imaginary part are no part of a model
        return np.asarray(nlmeans.denoise(values, **how))
    if values.ndim < 4:
        return np.asarray(nlmeans.denoise(values, noise=noise[0], **how))
    volumes = [nlmeans.denoise(values[..., n], noise=one, **how) for n, one in enumerate(noise)]
    return np.stack(volumes, axis=-1)


DOUBTS = (
    "structure may have been removed|hardly any noise was removed|no noise was found|in parts the noise is much weaker|"
    "as smooth as texture|flat blocks show the noise"
)
"""What the engine says of a result, or of the noise it found. It depends on the values, which are those of the file
whatever its format."""


def assert_said(log: pytest.LogCaptureFixture, outcome: Denoised) -> None:
    """Check that the log says what the case names, and nothing else of the file."""
    about_file = [line for line in log.messages if not re.search(DOUBTS, line)]
    assert bool(about_file) == bool(outcome.says), about_file
    assert all(re.search(outcome.says, line) for line in about_file), about_file


def assert_close(found: npt.ArrayLike, wanted: Values, tolerance: float) -> None:
    numbers = [np.asarray(values).astype("complex128") for values in (found, wanted)]
    np.testing.assert_allclose(*numbers, rtol=1e-6, atol=tolerance, equal_nan=True)


def out_of(built: Built, folder: Path) -> Path:
    """Where the result goes: a file of the same format, or NIfTI where that is only read."""
    ending = registry.ending_of(built.path, registry.WRITTEN) or ".nii.gz"
    return folder / ("out.zarr" if built.path.suffix == ".zarr" else f"out{ending}")


def assert_result(path: Path, built: Built, outcome: Denoised, wanted: Values, stored: str) -> None:
    """Check type, shape, place, voxels and header of a result."""
    scan = registry.load_scan(path, complex_too=True)
    assert scan.image.get_data_dtype().newbyteorder("=") == np.dtype(stored)
    assert np.squeeze(scan.data).shape == np.squeeze(built.values).shape
    if built.affine is not None:
        np.testing.assert_allclose(scan.image.affine, in_own_unit(built.affine, scan.image), atol=1e-3)
    assert_close(np.squeeze(scan.data), np.squeeze(wanted), outcome.tolerance)
    if built.path.name.lower().endswith((".nii", ".nii.gz")) and stored == outcome.stored and outcome.keeps_header:
        assert header_on_disk(path) == header_on_disk(built.path)


def in_own_unit(affine: Values, image: Any) -> Values:
    scale = 1000.0 if image.header.get_xyzt_units()[0] == "micron" else 1.0
    return np.asarray(np.diag([scale, scale, scale, 1.0]) @ affine)


@contextlib.contextmanager
def as_promised(outcome: Outcome) -> Iterator[None]:
    """Expect the error that a case names, or, of a foreign reader, any."""
    if isinstance(outcome, Denoised):
        yield
    else:
        words = outcome.words if isinstance(outcome, Refused) else ""
        with pytest.raises(Exception) as error:  # noqa: PT011  # which words depends on the case
            yield
        assert re.search(words, " ".join(messages_of(error.value)))


def messages_of(error: BaseException | None) -> Iterator[str]:
    while error is not None:
        yield str(error)
        error = error.__cause__


def model_of(record: dict[str, Any]) -> nlmeans.NoiseModel:
    """The noise model in the record of a run, without the levels of its channels."""
    return nlmeans.NoiseModel.from_dict({name: value for name, value in record.items() if name != "channels"})


# ---------------------------------------------------------------- the doors


def by_command_line(built: Built, folder: Path, outcome: Outcome, log: pytest.LogCaptureFixture) -> None:
    target, before = out_of(built, folder), contents(folder)
    words = ["denoise", built.path, target, "--method", METHOD, "--device", "cpu"]
    result = CliRunner().invoke(cli.main, [str(word) for word in words])
    if isinstance(outcome, Denoised):
        assert result.exit_code == 0, result.stderr
        assert result.stdout.startswith(f"{target}: {METHOD}")
        assert_said(log, outcome)
        if target.suffix == ".zarr":
            assert (zarrs.level(target) != built.values).any()
        else:
            record = json.loads(target.with_name("out.json").read_text())["noise"]
            noise = [model_of(one) for one in (record if isinstance(record, list) else [record])]
            assert_result(target, built, outcome, denoised(built.values, built.voxel_size, noise), outcome.stored)
        return
    assert result.exit_code == 1, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"Error: {built.path}")
    assert isinstance(outcome, Refused)
    assert re.search(outcome.words, line)
    assert contents(folder) == before


def by_python(built: Built, folder: Path, outcome: Outcome, log: pytest.LogCaptureFixture) -> None:
    with as_promised(outcome):
        image = nlmeans.load_image(built.path)
        if isinstance(outcome, Denoised):
            read = np.reshape(image.dataobj, built.values.shape)
            assert_close(read, built.values, 1e-5 * float(np.nanmax(np.abs(built.values))))
        result = nlmeans.denoise(image, level_of(built.values), method=METHOD)
        assert result.shape == image.shape
        is_constant = (built.values == built.values.flat[0]).all()
        assert (np.asarray(result.dataobj) != np.asarray(image.dataobj)).any() != is_constant
        nlmeans.save_image(result, out_of(built, folder))
    if isinstance(outcome, Denoised):
        assert_said(log, outcome)
        assert_result(
            out_of(built, folder),
            built,
            outcome,
            denoised(built.values, built.voxel_size),
            outcome.in_python or outcome.stored,
        )


def by_monai(built: Built, folder: Path, outcome: Outcome) -> None:
    from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged

    from monai_transforms import NonLocalMeansd

    with as_promised(outcome), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MONAI's readers
        read = Compose([LoadImaged("image"), EnsureChannelFirstd("image")])({"image": str(built.path)})["image"]
        result = NonLocalMeansd("image", level_of(built.values), method=METHOD, spacing="affine")({"image": read})[
            "image"
        ]
        if isinstance(outcome, Foreign):
            assert_close(np.squeeze(np.moveaxis(read.numpy(), 0, -1)), np.squeeze(built.values), 1e-3)
    if isinstance(outcome, Denoised):
        assert (result.shape, result.dtype, result.meta["affine"].tolist()) == (
            read.shape,
            read.dtype,
            read.meta["affine"].tolist(),
        )
        volumes = built.values if built.values.ndim == 4 else built.values[..., None]
        assert_close(np.squeeze(read.numpy()), np.squeeze(np.moveaxis(volumes, -1, 0)), 1e-3)
        sizes = np.linalg.norm(read.meta["affine"][:3, :3], axis=0)[: min(built.values.ndim, 3)]
        wanted = denoised(built.values.astype("float32"), sizes.tolist())
        wanted = np.moveaxis(wanted if wanted.ndim == 4 else wanted[..., None], -1, 0)
        assert_close(np.squeeze(result.numpy()), np.squeeze(wanted), outcome.tolerance)


def by_napari(built: Built, folder: Path, outcome: Outcome) -> None:
    from napari.layers import Image
    from npe2 import PluginManager, io_utils

    from napari_nlm.denoising import Denoising
    from napari_nlm.layer_source import LayerSource
    from napari_nlm.nifti import find_turn
    from napari_nlm.parameters import Parameters
    from napari_nlm.surveys import Surveys

    PluginManager.instance().discover()
    reader = "napari-nifti" if re.search(r"\.(nii|nii\.gz)$", built.path.name) else "napari"
    with as_promised(outcome), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other plugins
        ((data, *about),) = io_utils.read([str(built.path)], plugin_name=reader, stack=False)
        layer = Image(data, **(about[0] if about and about[0] else {}))
        shown = np.asarray(layer.data)
        read = find_turn(np.squeeze(shown), np.squeeze(built.values), np.squeeze(shown))
        assert read is not None
        assert_close(read, np.squeeze(built.values), outcome.tolerance if isinstance(outcome, Denoised) else 1e-3)
        source = LayerSource.of(layer)
        denoising = Denoising(source, Parameters(method=METHOD, sigma=level_of(shown)), None, Surveys(source, None))
        _, after = denoising.before_and_after(source.everywhere(), lambda fraction: None)
    if isinstance(outcome, Denoised):
        assert (after.shape, after.dtype) == (shown.shape, shown.dtype)
        for volume in source.volumes:
            place: list[Any] = [slice(None)] * shown.ndim
            for axis, number in zip(source.axes.separate, volume, strict=True):
                place[axis] = number
            wanted = nlmeans.denoise(
                shown[tuple(place)], level_of(shown), method=METHOD, spacing=source.spacing, device="cpu"
            )
            assert_close(after[tuple(place)], wanted, 1e-3 * level_of(shown))
