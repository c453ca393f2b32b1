"""Write the report of a run over many scans: why scans failed, and each scan before, after, and what was removed."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping, Sequence
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from nlmeans.files import atomic, bids
from nlmeans.files.batch import Outcome
from nlmeans.noise.kinds import FOLLOWING
from nlmeans.noise.model import NoiseModel

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em; color: #222; }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid #ccc; padding: .4em .8em; text-align: left; vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td img { width: 28em; display: block; }
.failed { background: #fdeaea; }
.doubt { background: #fff3d6; padding: .3em .5em; }
.name { overflow-wrap: anywhere; min-width: 12em; }
"""


def write_report(out: Path, outcomes: Sequence[Outcome], description: Mapping[str, Any] | None = None) -> Path:
    """Write report.html.

    Args:
        out: folder for the report.
        outcomes: what happened to each scan.
        description: content of dataset_description.json; with it, `out` becomes a BIDS dataset.

    Returns:
        The path of the report.
    """
    texts = {"report.html": page(outcomes, out)}
    if description is not None:
        texts[bids.DESCRIPTION] = json.dumps(description, indent=2) + "\n"
        texts[".bidsignore"] = "report.html\nfigures\nfigures/**\n"
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / name for name in texts]
    with atomic.written_together(*paths) as temporary:
        for file, text in zip(temporary, texts.values(), strict=True):
            file.write_text(text, encoding="utf-8", errors="replace")  # file names need not be UTF-8
    return paths[0]


def summary(outcomes: Sequence[Outcome]) -> str:
    """Count the outcomes in words.

    >>> from nlmeans.files.batch import Job
    >>> job = Job("scan", Path("scan.nii"), Path("out.nii"), Path("out.png"), {})
    >>> summary([Outcome(job, "denoised"), Outcome(job, "failed", "no such file"), Outcome(job, "denoised")])
    '2 denoised, 1 failed'
    """
    states = ("denoised", "finished before", "failed")
    counts = {state: sum(outcome.state == state for outcome in outcomes) for state in states}
    return ", ".join(f"{count} {state}" for state, count in counts.items() if count)


def page(outcomes: Sequence[Outcome], out: Path) -> str:
    """Make the report as HTML. Pictures are separate files, loaded when they are scrolled to, so it may be long."""
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    rows = "".join(
        f'<tr class="failed"><td class="name">{escape(outcome.job.name)}</td><td>{escape(outcome.reason)}</td></tr>\n'
        for outcome in failed
    )
    failures = f"<h2>Failed</h2>\n<table>\n<tr><th>Scan</th><th>Why</th></tr>\n{rows}</table>\n" if failed else ""
    scans = "".join(row(outcome, out) for outcome in outcomes if outcome.state != "failed")
    return f"""<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Denoised scans</title><style>{STYLE}</style></head>
<body>
<h1>Denoised scans</h1>
<p>{len(outcomes)} scans: {summary(outcomes)}. nlmeans {version("nlmeans")}.</p>
{failures}<h2>Scans</h2>
<p>Sigma is the standard deviation of the noise. SNR is the mean of the object divided by sigma. Removed / sigma is the
standard deviation of what was removed from the object, divided by sigma; it should be near 1. The third picture should
show only noise: if it shows anatomy, too much was removed. Below them, the noise that was found: how strong it is at
each intensity, what neighbours have in common, and where this was read. For a series, the table gives medians over its
volumes and shows the first volume.</p>
<table>
<tr><th>Scan</th><th>Method</th><th class="number">Sigma</th><th class="number">SNR</th>
<th class="number">Removed / sigma</th><th>Before, after, removed</th></tr>
{scans}</table>
</body>
</html>
"""


def row(outcome: Outcome, out: Path) -> str:
    """Make the table row of a scan that did not fail."""
    record = outcome.record
    settings, quality = record["settings"], record["quality"]
    noise = record["noise"] if isinstance(record["noise"], list) else [record["noise"]]
    varies = record["sigma_map"] is not None or settings["sigma"] == "map"
    follows = noise[0]["kind"] in FOLLOWING
    level = None if varies or follows else median_of([one["sigma"] for one in noise])
    removed = median_of(quality["removed"])
    ratio = None if not level or removed is None else removed / level
    picture = quote(os.fsencode(outcome.job.picture.relative_to(out).as_posix()))
    drawn = quote(os.fsencode(outcome.job.noise_picture.relative_to(out).as_posix()))
    noise_image = f'<a href="{drawn}"><img loading="lazy" src="{drawn}" alt="the noise that was found"></a>'
    why = "; ".join(noise[0]["evidence"])
    doubts = sorted(set(itertools.chain.from_iterable(record.get("doubts", ()))))  # earlier versions kept none
    doubtful = f'<p class="doubt">{escape("; ".join(doubts))}</p>' if doubts else ""
    model = {name: value for name, value in noise[0].items() if name != "channels"}
    kind = NoiseModel.from_dict(model if follows else {**model, "sigma": None})
    method = f"{settings['method']}, {kind}"
    numbers = "".join(
        f'<td class="number">{text}</td>'
        for text in (
            "varies" if varies else number(level, ".4g"),
            number(median_of(quality["snr"]), ".1f"),
            number(ratio, ".2f"),
        )
    )
    return (
        f'<tr><td class="name">{escape(outcome.job.name)}<br><small>{outcome.state}</small></td>'
        f"<td>{escape(method)}<br><small>{escape(why)}</small>{doubtful}</td>{numbers}"
        f'<td><a href="{picture}"><img loading="lazy" src="{picture}" alt="before, after, removed"></a>'
        f"{noise_image}</td></tr>\n"
    )


def median_of(values: float | Sequence[float | None] | None) -> float | None:
    """Return a number as it is, and the median of the numbers of a series; None if there is none.

    >>> median_of(3.0), median_of([1.0, None, 2.0, 9.0]), median_of(None)
    (3.0, 2.0, None)
    """
    numbers = [value for value in np.atleast_1d(np.array(values, dtype=object)) if value is not None]
    return float(np.median(np.array(numbers, float))) if numbers else None


def number(value: float | None, how: str) -> str:
    return "–" if value is None else f"{value:{how}}"
