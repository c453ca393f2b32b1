"""Denoise all images in a folder with the choices of the widget, by the engine's runs over many scans."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from napari_nlm.parameters import ENGINE_DEFAULTS, Parameters
from nlmeans.core.progress import Report, part
from nlmeans.files import batch, report


@dataclasses.dataclass(frozen=True)
class FolderResult:
    """What became of the images in a folder."""

    text: str
    """How many were denoised, and where their report is."""
    failures: list[str]
    """The name of each that failed, and why."""


def denoise_folder(source: Path, out: Path, parameters: Parameters, progress: Report) -> FolderResult:
    """Denoise the images in a folder, or in a BIDS dataset, each with noise of its own. What fails is told by name.

    A second run skips what is done, unless the image or the choices changed.

    Args:
        source: the folder.
        out: the folder for the results, their records, pictures and a report; it is made if it is not there.
        parameters: the choices. Numbers that describe the noise of one image are left out.
        progress: called with the fraction done.

    Raises:
        ValueError, OSError: there are no images, or the results cannot go to that folder.
    """
    jobs, out, description = batch.cohort([str(source)], out, **arguments_of_all(parameters))
    threads, outcomes = torch.get_num_threads(), []
    for number, job in enumerate(jobs):
        report_one = part(progress, number / len(jobs), (number + 1) / len(jobs))
        options = {**job.options, "progress": report_one}
        outcomes += batch.run_jobs([dataclasses.replace(job, options=options)], 1, threads, report_one)
    written = report.write_report(out, outcomes, description)
    failures = [f"{outcome.job.name}: {outcome.reason}" for outcome in outcomes if outcome.state == "failed"]
    return FolderResult(f"{report.summary(outcomes)}; see {written}", failures)


def arguments_of_all(parameters: Parameters) -> dict[str, Any]:
    """The choices as the arguments of `nlmeans.files.batch.cohort`.

    Raises:
        ValueError: one of them makes sense for one image alone.
    """
    if parameters.h is not None:
        raise ValueError("h is in multiples of the sigma of one image; set it to auto and choose a strength instead")
    settings = parameters.without_sigma.settings()
    given = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}
    chosen = {name: value for name, value in given.items() if value != getattr(ENGINE_DEFAULTS, name)}
    if chosen.pop("dtype", None) is not None:
        chosen["as_float"] = True
    return chosen | ({} if parameters.voxel_size else {"voxel_radii": True})
