"""Write the tables and the plot of speed.py from its results."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

Row = dict[str, Any]  # a Measurement of speed.py
COLOURS = {0: "#0072b2", 1: "#d55e00", 2: "#009e73"}


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def size(row: Row) -> str:
    power = {2: "²", 3: "³"}[len(row["shape"])]
    return f"{row['shape'][0]}{power}"


def width(radius: int, row: Row) -> str:
    return f"{2 * radius + 1}{'²' if len(row['shape']) == 2 else '³'}"


def case_title(row: Row) -> str:
    if row["patch_radius"] is None:
        return size(row)
    return f"{size(row)}, patch {width(row['patch_radius'], row)}, window {width(row['search_radius'], row)}"


def name(row: Row) -> str:
    return row["contender"] if row["device"] == "cpu" else f"{row['contender']} (GPU)"


def on_threads(row: Row) -> str:
    return "" if row["device"] != "cpu" else f", {row['threads']} thread{'s' * (row['threads'] > 1)}"


def digits(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def times(factor: float) -> str:
    return f"{factor:.1f}×" if factor < 9.95 else f"{factor:.0f}×"


def spread(seconds: list[float]) -> str:
    if len(seconds) == 1:
        return f"{digits(seconds[0])} (once)"
    return f"{digits(median(seconds))} ({digits(min(seconds))}–{digits(max(seconds))}, {len(seconds)} runs)"


def rate(row: Row) -> float:
    return row["pairs"] / median(row["seconds"]) / 1e9


def mebibytes(row: Row) -> str:
    return f"{row['memory'] / 2**20:.0f}"


def cases(rows: list[Row]) -> list[list[Row]]:
    """Group the rows by case, in the order measured."""
    grouped: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        grouped.setdefault((*row["shape"], row["patch_radius"], row["search_radius"]), []).append(row)
    return list(grouped.values())


def is_ours(row: Row) -> bool:
    return row["contender"].startswith(("nlmeans", "denoise"))


def speed_up(row: Row, ours: Row) -> float:
    return median(row["seconds"]) / median(ours["seconds"])


def duel(rows: list[Row]) -> str:
    """Table of one case: every contender, and the factor by which ours is faster; the first row is ours."""
    ours = rows[0]
    references = [row for row in rows if row["contender"] in ("nlmeans cpu", "nlmeans gpu")]
    columns = [f"{name(row)}{on_threads(row)} is faster by" for row in references]
    body = []
    for row in rows:
        factors = ["" if row is ref else times(speed_up(row, ref)) for ref in references]
        difference = "" if row["contender"] == ours["contender"] else f"{row['difference']:.1g} σ"
        shown = name(row) + (on_threads(row) if row in references else "")
        body.append([shown, spread(row["seconds"]), digits(rate(row)), *factors, difference, row["note"]])
    header = [case_title(ours), "seconds (min–max)", "Gpairs/s", *columns, "differs from ours by", ""]
    return table(header, body)


def duels(rows: list[Row]) -> str:
    return "\n\n".join(duel(group) for group in cases(rows))


def scaling(rows: list[Row]) -> str:
    """Tables per device and patch radius, with a row per size and a column per window."""
    parts = []
    for contender in dict.fromkeys(row["contender"] for row in rows):
        for patch in sorted({row["patch_radius"] for row in rows}):
            mine = [row for row in rows if (row["contender"], row["patch_radius"]) == (contender, patch)]
            windows = sorted({row["search_radius"] for row in mine})
            cells = {(size(row), row["search_radius"]): row for row in mine}
            body = [
                [n, *(f"{digits(rate(row))} ({digits(median(row['seconds']))} s)" if row else "" for row in found)]
                for n in dict.fromkeys(size(row) for row in mine)
                for found in [[cells.get((n, window)) for window in windows]]
            ]
            header = [f"{contender}, patch {2 * patch + 1}³", *(f"window {2 * window + 1}³" for window in windows)]
            parts.append(table(header, body))
    return "\n\n".join(parts)


def methods(rows: list[Row]) -> str:
    groups = cases(rows)
    names = list(dict.fromkeys(row["contender"] for row in rows))
    cells = {(size(row), row["contender"]): spread(row["seconds"]) for row in rows}
    body = [[n, *(cells.get((size(group[0]), n), "") for group in groups)] for n in names]
    return table(["seconds (min–max)", *(size(group[0]) for group in groups)], body)


def threads(rows: list[Row]) -> str:
    body = []
    for group in cases(rows):
        one = group[0]
        body.append([case_title(one), *(f"{digits(rate(row))} ({times(speed_up(one, row))})" for row in group)])
    counts = [f"{row['threads']} thread{'s' * (row['threads'] > 1)}" for row in cases(rows)[0]]
    return table(["Gpairs/s", *counts], body)


def memory(rows: list[Row]) -> str:
    volume = 4 * math.prod(rows[0]["shape"])
    body = [[name(r), mebibytes(r), f"{r['memory'] / volume:.1f}×", digits(r["seconds"][0])] for r in rows]
    header = [case_title(rows[0]), "extra memory at the peak, MiB", "times the float32 volume", "seconds of that run"]
    return table(header, body)


def biggest(rows: list[Row]) -> str:
    body = [[name(r), digits(r["seconds"][0]), digits(rate(r)), mebibytes(r)] for r in rows]
    return table([case_title(rows[0]), "seconds", "Gpairs/s", "extra memory at the peak, MiB"], body)


def first_use(results: Row) -> str:
    body = [
        [f"{2 * row['patch_radius'] + 1}³", f"{row['empty']:.2f}", f"{row['on_disk']:.2f}"]
        for row in results["first_use"]
    ]
    return table(["patch", "seconds, empty compile cache", "seconds, filled compile cache"], body)


def preview(results: Row) -> str:
    milliseconds = [1e3 * s for s in results["preview"]]
    return f"{spread(milliseconds)} ms for a 256×256 slice of a 256³ volume, patch 3³, window 7³."


def header(about: Row) -> str:
    versions = ", ".join(f"{package} {number}" for package, number in about["versions"].items())
    missing = f" Not installed: {', '.join(about['missing'])}." if about["missing"] else ""
    return (
        f"{about['cpu']}, {about['cores']} cores, {about['memory'] / 2**30:.0f} GiB; "
        f"GPU: {about['gpu']}; {about['threads']} threads; {about['system']}; {about['date']}, "
        f"load {about['load_before']:.1f} before, {about['load_after']:.1f} after {about['minutes']:.1f} minutes.\n\n"
        f"{versions}.{missing}"
    )


def markdown(results: Row) -> str:
    topics: dict[str, list[Row]] = {}
    for row in results["measurements"]:
        topics.setdefault(row["topic"], []).append(row)
    sections = {
        "Volumes, patchwise": duels(topics["peers"]),
        "Volumes, pixelwise (patch radius 0, smoothed beforehand)": duels(topics["pixelwise"]),
        "2D images (template and search window of OpenCV)": duels(topics["pictures"]),
        "Whole methods: `nlmeans.denoise` and BM4D": methods(topics["methods"]),
        "Size, window and patch: Gpairs/s (seconds)": scaling(topics["scaling"]),
        "Threads: Gpairs/s (times one thread)": threads(topics["threads"]),
        "Memory": memory(topics["memory"]) + "\n\n" + memory(topics["memory of methods"]),
        "A large volume, in its own process": biggest(topics["biggest"]),
        "First call in a process (24³ voxels, window 7³)": first_use(results),
        "Preview": preview(results),
    }
    text = "".join(f"\n## {title}\n\n{section}\n" for title, section in sections.items())
    return (
        f"# Speed\n\nMade by `python benchmarks/speed.py`. How it is measured: [README](../README.md).\n\n"
        f"{header(results['machine'])}\n{text}"
    )


def plot_scaling(axes: Axes, rows: list[Row]) -> None:
    styles = dict(zip(sorted({row["search_radius"] for row in rows}), ("--", "-", ":", "-."), strict=False))
    for (patch, window), style in [((p, w), s) for p in COLOURS for w, s in styles.items()]:
        line = [r for r in rows if (r["patch_radius"], r["search_radius"]) == (patch, window) and r["device"] == "cpu"]
        if len(line) < 2:
            continue
        label = f"patch {2 * patch + 1}³, window {2 * window + 1}³"
        axes.plot(
            [r["shape"][0] for r in line], [rate(r) for r in line], style, color=COLOURS[patch], marker="o", label=label
        )
    sizes = sorted({row["shape"][0] for row in rows})
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [f"{n}³" for n in sizes])
    axes.set_ylim(bottom=0)
    axes.set(xlabel="volume", ylabel="Gpairs/s", title="nlmeans cpu: voxels × window per second")
    axes.legend(fontsize="x-small", ncols=3)


def plot_peers(axes: Axes, rows: list[Row]) -> None:
    bars: dict[str, tuple[float, int]] = {}
    for group in cases(rows):
        for row in group:
            if not is_ours(row):
                what = f"{width(row['patch_radius'], row)} in {width(row['search_radius'], row)}"
                # larger volumes come later and replace smaller ones
                bars[f"{row['contender']}, {what}"] = speed_up(row, group[0]), row["patch_radius"]
    labels = sorted(bars, reverse=True)
    factors = [bars[label][0] for label in labels]
    drawn = axes.barh(labels, factors, color=[COLOURS.get(bars[label][1], "#777777") for label in labels])
    axes.bar_label(drawn, [times(factor) for factor in factors], padding=3, fontsize="small")
    axes.set_xscale("log")
    axes.set_xlim(min(0.8, *factors), 2 * max(factors))
    axes.axvline(1, color="black", linewidth=0.8)
    axes.tick_params(axis="y", labelsize="small")
    axes.set(xlabel="times as fast", title="nlmeans cpu versus peers (patch in window, largest common size)")


def plot(results: Row, path: Path) -> None:
    rows = results["measurements"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(14, 6), layout="constrained")
    plot_scaling(left, [row for row in rows if row["topic"] == "scaling"])
    topics = ("peers", "pixelwise", "pictures")
    plot_peers(right, [row for row in rows if row["topic"] in topics and row["device"] == "cpu"])
    about = results["machine"]
    figure.suptitle(f"{about['cpu']}, {about['threads']} threads, {about['date']}", fontsize="medium")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def write_report(results: Row, out: Path) -> None:
    (out / "speed.md").write_text(markdown(results), encoding="utf-8")
    plot(results, out / "speed.png")
