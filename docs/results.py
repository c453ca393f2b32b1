"""Tables and figures of the documentation, from what `benchmarks/` measured.

Pages have them put in when the site is built. The README has them in itself: `python docs/results.py` writes them anew
after a measurement, and a test tells when that was forgotten.
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

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
RESULTS = ROOT / "benchmarks" / "results"
README = ROOT / "README.md"

VOLUMES = ("MNI152", "anatomical", "diffusion b0", "example4d", "phantom", "thick phantom", "colin27_crop")
"""Those in 3D."""

PEERS = ("scikit-image NLM", "DIPY classic", "DIPY blockwise", "ANTs", "BM4D")


WIDTH = 120
"""Of a line in the README."""


def read(name: str) -> Any:
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows))


# ---------------------------------------------------------------- quality


Score = dict[str, float]


def scores(kind: str, level: int) -> dict[tuple[str, str], Score]:
    """By volume and method."""
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
    """A row for each method: PSNR in the object and everywhere and SSIM at each level of Gaussian noise, and seconds.

    They are means over the volumes on which all of them were measured; which those are is the second result.
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
        "Gaussian noise, per cent of the maximum; PSNR in the object / everywhere (dB), SSIM in the object, mean over "
        f"{' and '.join(volumes) if len(volumes) < 3 else ', '.join(volumes)}; seconds for {size} voxels on two cores."
    )
    return rows, about


MEASURES = ("mask_psnr", "psnr", "ssim")


def methods() -> str:
    """Every method with what it does, how good and how fast."""
    rows, about = compared(list(METHODS), (3, 9))
    body = [[row[0], METHODS[name].summary, *row[1:]] for name, row in zip(METHODS, rows, strict=True)]
    return table(["method", "what it does", "3 %", "9 %", "s"], body) + f"\n\n{about}"


def peers() -> str:
    """What the README shows."""
    names = ("noisy", "scikit-image NLM", "DIPY classic", "BM4D", "classic", "wiener", "bayes", "best")
    rows, about = compared(names, (3, 9))
    return table(["", "3 %", "9 %", "s"], rows) + f"\n\n{about}"


def all_peers() -> str:
    rows, about = compared(("noisy", *PEERS, *METHODS), (1, 3, 9))
    return table(["", "1 %", "3 %", "9 %", "s"], rows) + f"\n\n{about}"


def colin27() -> str:
    found = [scores("gaussian", level) for level in (3, 9)]
    names = ("noisy", "BM4D", *METHODS)
    body = []
    for name in names:
        cells = [score["colin27_crop", name] for score in found]
        shown = [f"{c['mask_psnr']:.2f} / {c['psnr']:.2f}, {c['ssim']:.3f}" for c in cells]
        body.append([f"`{name}`" if name in METHODS else name, *shown])
    return table(["", "3 %", "9 %"], body)


MODELS = (
    (
        "counts, 10 photons at the brightest: exact inverse, not the algebraic one",
        "poisson",
        10,
        "",
        ", algebraic inverse",
    ),
    ("the same with 100 photons", "poisson", 100, "", ", algebraic inverse"),
    ("noise from 2 to 8 %: its map, not one sigma", "ramp", 5, "", ", one sigma"),
    ("the same with an estimated map", "ramp", 5, ", estimated map", ", one sigma"),
    ("3 % impulses: replaced first, not left in", "impulses", 3, "", ", impulses left in"),
)


def noise_models() -> str:
    """What each part of a noise model is worth: gain in PSNR inside the object, mean and range over the volumes."""

    def gain(method: str, kind: str, level: int, right: str, wrong: str) -> str:
        found = scores(kind, level)
        pairs = [(found.get((v, method + right)), found.get((v, method + wrong))) for v in VOLUMES]
        gains = [a["mask_psnr"] - b["mask_psnr"] for a, b in pairs if a and b]
        return f"{fmean(gains):+.2f} ({min(gains):+.2f} to {max(gains):+.2f})" if gains else "–"

    body = [[what, gain("classic", *case), gain("bayes", *case)] for what, *case in MODELS]
    return table(["gain, dB: mean (least to most)", "`classic`", "`bayes`"], body)


def beside_bm4d() -> str:
    """A sentence: `bayes` less BM4D over all volumes and levels of Gaussian noise."""
    gains: list[Score] = []
    volumes = set()
    for level in (1, 3, 5, 7, 9):
        found = scores("gaussian", level)
        for volume in VOLUMES:
            if (volume, "bayes") in found and (volume, "BM4D") in found:
                ours, rival = found[volume, "bayes"], found[volume, "BM4D"]
                gains.append({name: ours[name] - rival[name] for name in MEASURES})
                volumes.add(volume)
    inside = [gain["mask_psnr"] for gain in gains]
    better = "every case" if min(g["ssim"] for g in gains) > 0 else f"{sum(g['ssim'] > 0 for g in gains)} cases"
    return textwrap.fill(
        f"Over {len(volumes)} volumes, MR with noise of its own among them, and 1 to 9 % of Gaussian noise "
        f"({len(gains)} cases), `bayes` is {fmean(inside):.2f} dB above BM4D on average and {min(inside):.2f} dB at "
        f"least, with a higher SSIM in {better}.",
        WIDTH,
    )


# ---------------------------------------------------------------- speed


Row = dict[str, Any]


def rows_of(topic: str, file: str = "speed.json") -> list[Row]:
    return [row for row in read(file)["measurements"] if row["topic"] == topic]


def seconds_of(row: Row) -> float:
    return median(row["seconds"])


def rivals(rows: Sequence[Row], shape: Sequence[int], patch_radius: int, search_radius: int) -> dict[str, float]:
    """How many times as long as ours with all threads, by name."""
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
    """A table: the same work by others, as a multiple of our time."""
    cases = [((n,) * 3, p, s) for n, p, s in ((64, 1, 3), (96, 1, 3), (96, 1, 5), (96, 2, 5))]
    found = [rivals(rows_of("peers"), *case) for case in cases]
    names = dict.fromkeys(name for case in found for name in case)
    header = ["", *(f"{n[0]}³, patch {2 * p + 1}³, window {2 * s + 1}³" for n, p, s in cases)]
    return table(header, ([name, *(f"{times(c[name])} ×" if name in c else "–" for c in found)] for name in names))


def fast() -> str:
    """A paragraph: the operator beside its peers, a large volume, and the preview."""
    volume = rivals(rows_of("peers"), (96, 96, 96), 1, 3)
    pictures = rows_of("pictures")
    cases = {(tuple(r["shape"]), r["patch_radius"], r["search_radius"]) for r in pictures}
    opencv = sorted(rivals(pictures, *case)["OpenCV"] for case in cases)
    big = rows_of("biggest")[0]
    size, window = big["shape"][0], 2 * big["search_radius"] + 1
    return textwrap.fill(
        "The operator at patch 3³ and window 7³ of a 96³ volume: "
        f"{times(volume['scikit-image fast'])} times as fast as scikit-image's fast mode, "
        f"{times(volume['DIPY classic'])} times DIPY classic, {times(volume['DIPY blockwise'])} times DIPY blockwise; "
        f"in 2D {times(opencv[0])} to {times(opencv[-1])} times OpenCV's 8-bit filter, in float32. "
        f"A {size}³ volume with a {window}³ window takes {seconds_of(big):.0f} seconds on two cores, "
        f"{seconds_of(rows_of('biggest', 'avx512/speed.json')[0]):.0f} on two newer ones with AVX-512; the preview of "
        f"a 256×256 slice {1e3 * median(read('speed.json')['preview']):.0f} ms.",
        WIDTH,
    )


def gpu() -> str:
    """A paragraph: the operator and the methods on a card."""
    found = read("gpu.json")
    operator = {row["patch_radius"]: row for row in found["operator"]}
    size = operator[0]["size"]
    methods = {row["method"]: median(row["seconds"]) for row in found["methods"] if row["size"] == 96}
    named = ", ".join(f"`{name}` {1e3 * methods[name]:.0f} ms" for name in ("classic", "wiener", "bayes", "best"))
    return textwrap.fill(
        f"On one {found['machine']['gpu']}, the {size}³ volume with a 17³ window takes "
        f"{1e3 * seconds_of(operator[0]):.0f} ms, with patches of 3³ {1e3 * seconds_of(operator[1]):.0f} ms; "
        f"a 96³ volume by {named}.",
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
    """What a marker in a page stands for, with links that lead from there."""
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
            raise ValueError(f"{name} has no section {heading!r}, which {page} asks for")
        text = found[1].strip()
    else:
        text = re.sub(r"\A# .*\n", "", text)
        if "/" not in page:  # below a heading of the page's own
            text = re.sub("^##", "###", text, flags=re.MULTILINE)
    return linked(text, path.resolve().parent, up)


def linked(text: str, folder: Path, up: str) -> str:
    """Relative links of a file in `folder`, as a page of docs/ that is `up` below it has them."""

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
    found = re.search(rf"<!-- {name} -->\n(.*?)<!-- end -->", README.read_text(encoding="utf-8"), re.DOTALL)
    if not found:
        raise ValueError(f"README.md has no part between <!-- {name} --> and <!-- end -->")
    return found[1]


def with_figures(readme: str) -> str:
    """The README with its tables as they were measured last."""

    def written(marker: re.Match[str]) -> str:
        return f"<!-- table: {marker[1]} -->\n{TABLES[marker[1]]()}\n<!-- end -->"

    return re.sub(r"<!-- table: (.+?) -->\n.*?<!-- end -->", written, readme, flags=re.DOTALL)


if __name__ == "__main__":
    README.write_text(with_figures(README.read_text(encoding="utf-8")), encoding="utf-8")
