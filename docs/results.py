"""Make the documentation's tables and figures from the results in `benchmarks/results/`.

The site build inserts them into the pages. The README holds a copy: run `python docs/results.py` after a measurement to
update it. A test fails if the copy is out of date.
"""

from __future__ import annotations

import json
import os
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from nlmeans import METHODS
from nlmeans.methods.registry import single_methods

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
RESULTS = ROOT / "benchmarks" / "results"
README = ROOT / "README.md"

VOLUMES = ("MNI152", "anatomical", "diffusion b0", "example4d", "phantom", "thick phantom", "colin27_crop")
"""The 3D test volumes."""

PEERS = ("scikit-image NLM", "DIPY classic", "DIPY blockwise", "ANTs", "BM4D")


WIDTH = 120
"""Characters per line in the README."""


def read(name: str) -> Any:
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows))


# ---------------------------------------------------------------- quality


Score = dict[str, float]


def scores(kind: str, level: int) -> dict[tuple[str, str], Score]:
    """Return the scores for one kind and level of noise, by volume and method."""
    found = {}
    for key, score in read("quality.json")["scores"].items():
        volume, its_kind, its_level, method, _ = key.split(" | ")
        if (its_kind, float(its_level)) == (kind, level):
            found[volume, method] = score
    return found


def seconds(method: str) -> str:
    found = read("quality.json")["seconds"].get(method)
    return "" if found is None else f"{found:.2f}" if found < 1 else f"{found:.1f}"


def compared(names: Sequence[str], levels: Sequence[int]) -> tuple[list[list[str]], str]:
    """Return a table row for each method, and a caption.

    A row holds PSNR in the object, PSNR everywhere and SSIM at each level of Gaussian noise, and then the seconds.
    Scores are means over the volumes on which all methods were measured; the caption names these volumes.
    """
    found = [scores("gaussian", level) for level in levels]
    volumes = [v for v in VOLUMES if all((v, name) in cells for name in names for cells in found)]

    def shown(cells: dict[tuple[str, str], Score], name: str) -> str:
        mask, everywhere, ssim = (fmean(cells[v, name][key] for v in volumes) for key in MEASURES)
        return f"{mask:.2f} / {everywhere:.2f}, {ssim:.3f}"

    rows = [
        [f"`{name}`" if name in METHODS else name, *(shown(cells, name) for cells in found), seconds(name)]
        for name in names
    ]
    size = read("quality.json")["timing"]["volume"].rsplit(", ", 1)[-1]
    about = (
        "PSNR in the object / everywhere (dB), and SSIM in the object, for Gaussian noise in per cent of the maximum. "
        f"Mean over the volumes {' and '.join(volumes) if len(volumes) < 3 else ', '.join(volumes)}. "
        f"Seconds for {size} voxels on two cores."
    )
    return rows, about


MEASURES = ("mask_psnr", "psnr", "ssim")


def methods() -> str:
    """Table of our methods: what each does, its scores and its time."""
    rows, about = compared(single_methods(), (3, 9))
    body = [[row[0], METHODS[name].summary, *row[1:]] for name, row in zip(single_methods(), rows, strict=True)]
    return table(["method", "what it does", "3 % noise", "9 % noise", "seconds"], body) + f"\n\n{about}"


def peers() -> str:
    """Table of selected methods and peers, for the README."""
    names = ("noisy", "scikit-image NLM", "DIPY classic", "BM4D", "classic", "wiener", "bayes", "best")
    rows, about = compared(names, (3, 9))
    return table(["", "3 % noise", "9 % noise", "seconds"], rows) + f"\n\n{about}"


def all_peers() -> str:
    """Table of all our methods and all peers."""
    rows, about = compared(("noisy", *PEERS, *single_methods()), (1, 3, 9))
    return table(["", "1 % noise", "3 % noise", "9 % noise", "seconds"], rows) + f"\n\n{about}"


def colin27() -> str:
    """Table of our methods and BM4D on the Colin27 crop."""
    found = [scores("gaussian", level) for level in (3, 9)]
    names = ("noisy", "BM4D", *single_methods())
    body = []
    for name in names:
        cells = [score["colin27_crop", name] for score in found]
        shown = [f"{c['mask_psnr']:.2f} / {c['psnr']:.2f}, {c['ssim']:.3f}" for c in cells]
        body.append([f"`{name}`" if name in METHODS else name, *shown])
    return table(["", "3 % noise", "9 % noise"], body)


MODELS = (
    (
        "counts, 10 photons at the brightest voxel: exact instead of algebraic inverse",
        "poisson",
        10,
        "",
        ", algebraic inverse",
    ),
    ("the same with 100 photons at the brightest voxel", "poisson", 100, "", ", algebraic inverse"),
    ("noise from 2 to 8 %: true map instead of one sigma", "ramp", 5, "", ", one sigma"),
    ("the same with an estimated map", "ramp", 5, ", estimated map", ", one sigma"),
    ("3 % impulses: replaced first instead of left in", "impulses", 3, "", ", impulses left in"),
)


def noise_models() -> str:
    """Table of the gain in PSNR from the right noise model, inside the object: mean and range over the volumes."""

    def gain(method: str, kind: str, level: int, right: str, wrong: str) -> str:
        found = scores(kind, level)
        pairs = [(found.get((v, method + right)), found.get((v, method + wrong))) for v in VOLUMES]
        gains = [a["mask_psnr"] - b["mask_psnr"] for a, b in pairs if a and b]
        return f"{fmean(gains):+.2f} ({min(gains):+.2f} to {max(gains):+.2f})" if gains else "–"

    body = [[what, gain("classic", *case), gain("bayes", *case)] for what, *case in MODELS]
    return table(["gain in dB: mean (smallest to largest)", "`classic`", "`bayes`"], body)


def beside_bm4d() -> str:
    """Paragraph: how far we are ahead of BM4D, which is told sigma, over all volumes and levels of Gaussian noise."""
    gains: dict[str, list[Score]] = {"best": [], "bayes": [], "default, nothing told": []}
    volumes = set()
    for level in (1, 3, 5, 7, 9):
        found = scores("gaussian", level)
        for volume in VOLUMES:
            if (volume, "BM4D") in found:
                rival = found[volume, "BM4D"]
                for method, rows in gains.items():
                    rows.append({name: found[volume, method][name] - rival[name] for name in MEASURES})
                volumes.add(volume)
    best, bayes, default = ([gain["mask_psnr"] for gain in rows] for rows in gains.values())
    less = sum(gain["ssim"] <= 0 for method in ("best", "bayes") for gain in gains[method])
    behind = sum(gain <= 0 for gain in default)
    return textwrap.fill(
        f"Over {len(best)} cases ({len(volumes)} volumes, some of them MR scans that already contain noise, with 1 to "
        f"9 % of added Gaussian noise), all told sigma, the PSNR of `best` is {fmean(best):.2f} dB higher than that of "
        f"BM4D on average, and at least {min(best):.2f} dB; that of `bayes` {fmean(bayes):.2f} dB, and at least "
        f"{min(bayes):.2f} dB. Their SSIM is higher in {'every case' if not less else f'all cases but {less}'}. With "
        f"nothing told, the default is still {fmean(default):.2f} dB above BM4D that is told sigma, and behind it in "
        f"{behind} {'case' if behind == 1 else 'cases'}, where a scan's own noise, which counts as truth, is stronger "
        "than what was added.",
        WIDTH,
    )


# ---------------------------------------------------------------- speed


Row = dict[str, Any]


def rows_of(topic: str, file: str = "speed.json") -> list[Row]:
    return [row for row in read(file)["measurements"] if row["topic"] == topic]


def seconds_of(row: Row) -> float:
    return median(row["seconds"])


def rivals(rows: Sequence[Row], shape: Sequence[int], patch_radius: int, search_radius: int) -> dict[str, float]:
    """Return by name how many times as long as ours each peer takes, with all threads."""
    case = [
        row
        for row in rows
        if (row["shape"], row["patch_radius"], row["search_radius"]) == (list(shape), patch_radius, search_radius)
    ]
    threads = max(row["threads"] for row in case if row["contender"] == "nlmeans cpu")
    ours = next(r for r in case if r["contender"] == "nlmeans cpu" and r["threads"] == threads)
    return {r["contender"]: seconds_of(r) / seconds_of(ours) for r in case if not r["contender"].startswith("nlmeans")}


def times(factor: float) -> str:
    return f"{factor:.1f}" if factor < 10 else f"{factor:.0f}"


def operator() -> str:
    """Table of the time that peers take for the same work, as a multiple of ours."""
    cases = [((n,) * 3, p, s) for n, p, s in ((64, 1, 3), (96, 1, 3), (96, 1, 5), (96, 2, 5))]
    found = [rivals(rows_of("peers"), *case) for case in cases]
    names = dict.fromkeys(name for case in found for name in case)
    header = ["", *(f"{n[0]}³, patch {2 * p + 1}³, window {2 * s + 1}³" for n, p, s in cases)]
    return table(header, ([name, *(f"{times(c[name])} ×" if name in c else "–" for c in found)] for name in names))


def fast() -> str:
    """Paragraph on speed: the operator compared with its peers, a large volume, and the preview."""
    volume = rivals(rows_of("peers"), (96, 96, 96), 1, 3)
    pictures = rows_of("pictures")
    cases = {(tuple(r["shape"]), r["patch_radius"], r["search_radius"]) for r in pictures}
    opencv = sorted(rivals(pictures, *case)["OpenCV"] for case in cases)
    big = rows_of("biggest")[0]
    size, window = big["shape"][0], 2 * big["search_radius"] + 1
    return textwrap.fill(
        "With a patch of 3³ and a search window of 7³ voxels, on a 96³ volume, the operator is "
        f"{times(volume['scikit-image fast'])} times as fast as scikit-image's fast mode, "
        f"{times(volume['DIPY classic'])} times as fast as DIPY classic and {times(volume['DIPY blockwise'])} times as "
        f"fast as DIPY blockwise. In 2D, in float32, it is {times(opencv[0])} to {times(opencv[-1])} times as fast as "
        f"OpenCV's 8-bit filter. A {size}³ volume with a {window}³ window takes {seconds_of(big):.0f} seconds on two "
        f"cores, and {seconds_of(rows_of('biggest', 'avx512/speed.json')[0]):.0f} seconds on two newer cores with "
        f"AVX-512. The preview of a 256×256 slice takes {1e3 * median(read('speed.json')['preview']):.0f} ms.",
        WIDTH,
    )


def gpu() -> str:
    """Paragraph on speed on a GPU: the operator and the methods."""
    found = read("gpu.json")
    operator = {row["patch_radius"]: row for row in found["operator"]}
    size = operator[0]["size"]
    methods = {row["method"]: median(row["seconds"]) for row in found["methods"] if row["size"] == 96}
    named = ", ".join(f"{1e3 * methods[name]:.0f} ms with `{name}`" for name in ("classic", "wiener", "bayes", "best"))
    return textwrap.fill(
        f"On one {found['machine']['gpu']}, the operator takes {1e3 * seconds_of(operator[0]):.0f} ms for the {size}³ "
        f"volume with a 17³ window, and {1e3 * seconds_of(operator[1]):.0f} ms with patches of 3³. A 96³ volume takes "
        f"{named}. This was measured before `wiener`, `bayes` and `best` had kernels of their own on a GPU.",
        WIDTH,
    )


TABLES: dict[str, Callable[[], str]] = {
    "methods": methods,
    "peers": peers,
    "all peers": all_peers,
    "colin27": colin27,
    "noise models": noise_models,
    "beside BM4D": beside_bm4d,
    "operator": operator,
    "fast": fast,
    "gpu": gpu,
}


# ---------------------------------------------------------------- pages


def filled(kind: str, what: str, page: str) -> str:
    """Return the text that replaces a marker in a page, with its links made relative to that page."""
    up = "../" * page.count("/")
    if kind == "table":
        return TABLES[what]()
    if kind == "readme":
        return linked(part_of_readme(what), ROOT, up)
    name, _, heading = what.partition("#")
    path = RESULTS / name
    if not path.exists():
        return "Not measured yet."
    text = path.read_text(encoding="utf-8")
    if heading:
        found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
        if not found:
            raise ValueError(f"{name} has no section {heading!r}, which {page} includes")
        text = found[1].strip()
    else:
        text = re.sub(r"\A# .*\n", "", text)
        if "/" not in page:  # the page puts the text under a heading of its own
            text = re.sub("^##", "###", text, flags=re.MULTILINE)
    return linked(text, path.resolve().parent, up)


def linked(text: str, folder: Path, up: str) -> str:
    """Rewrite the relative links in `text`, a file in `folder`, for a page; `up` leads from that page to docs/."""

    def target(link: re.Match[str]) -> str:
        if link[1].startswith(("http", "#")):
            return link[0]
        file = (folder / link[1]).resolve()
        pages = {ROOT / "benchmarks" / "README.md": "tables/method.md"}
        pages |= {RESULTS / page.name: f"tables/{page.name}" for page in (DOCS / "tables").glob("*.md")}
        place = pages.get(file) or Path(os.path.relpath(file, DOCS)).as_posix()
        return f"]({up}{place})"

    return re.sub(r"\]\(([^)\s]+)\)", target, text)


def part_of_readme(name: str) -> str:
    """Return the part of the README between the marker `name` and the next end marker."""
    found = re.search(rf"<!-- {name} -->\n(.*?)<!-- end -->", README.read_text(encoding="utf-8"), re.DOTALL)
    if not found:
        raise ValueError(f"README.md has no part between <!-- {name} --> and <!-- end -->")
    return found[1]


def with_figures(readme: str) -> str:
    """Return the README with its tables filled from the latest results."""

    def written(marker: re.Match[str]) -> str:
        return f"<!-- table: {marker[1]} -->\n{TABLES[marker[1]]()}\n<!-- end -->"

    return re.sub(r"<!-- table: (.+?) -->\n.*?<!-- end -->", written, readme, flags=re.DOTALL)


if __name__ == "__main__":
    README.write_text(with_figures(README.read_text(encoding="utf-8")), encoding="utf-8")
