"""Every method of the registry: its gain; tiles, previews, channels and maps; and methods of other packages."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nlmeans import METHODS, denoise, preview
from nlmeans.core.metrics import psnr
from nlmeans.engine import plan as engine_plan
from nlmeans.methods.registry import BUILT_IN, Registry, method_names
from tests.nlmeans.forks import Forks
from tests.nlmeans.volumes import NIFTI, SINGLE, decaying_series, noisy_piecewise

pytestmark = pytest.mark.usefixtures("two_threads")

ROOT = Path(__file__).parents[3]
SIGMA = 10.0
IMPORT = "from nlmeans.methods.means import"

LEAST_GAIN = {
    "classic": 11,
    "patchwise": 12,
    "linear": 10,
    "stochastic": 11,
    "dct": 12,
    "wiener": 13,
    "pri": 13,
    "bayes": 13,
    "best": 13,
    "subspace": 11,
}


def test_every_method_has_a_least_gain_here() -> None:
    assert set(LEAST_GAIN) == set(SINGLE)


@pytest.mark.parametrize("method", SINGLE)
def test_noise_is_removed_from_a_volume(method: str) -> None:
    clean, image = noisy_piecewise(20, 22, 24, sigma=SIGMA)
    denoised = denoise(image, SIGMA, method=method)
    assert psnr(clean, denoised) - psnr(clean, image) > LEAST_GAIN[method]


@pytest.mark.parametrize("method", SINGLE)
def test_noise_is_removed_from_an_image(method: str) -> None:
    clean, image = noisy_piecewise(48, 50, sigma=SIGMA)
    denoised = denoise(image, SIGMA, method=method)
    assert psnr(clean, denoised) - psnr(clean, image) > 4


@pytest.mark.parametrize("method", SINGLE)
def test_tiles_give_the_untiled_result(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, image = noisy_piecewise(12, 180, 14, sigma=SIGMA)
    whole = denoise(image, SIGMA, method=method)
    sizes = []
    original = engine_plan.tile_shape

    def small_tiles(*arguments: Any) -> Any:
        sizes.append(original(*arguments))
        return 12, 23, 14

    monkeypatch.setattr(engine_plan, "tile_shape", small_tiles)
    rounding = 5e-3 if method == "linear" else 1e-3
    assert denoise(image, SIGMA, method=method) == pytest.approx(whole, abs=rounding)
    assert sizes == [(12, 180, 14)]


@pytest.mark.parametrize(
    ("method", "search_radius"), [("classic", (3, 2, 1)), ("wiener", 2), ("linear", 3), ("bayes", 2)]
)
def test_tiles_and_previews_of_windows_are_those_of_the_whole(
    method: str, search_radius: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attention windows of a tile lie where those of the whole volume lie."""
    _, image = noisy_piecewise(12, 90, 14, sigma=SIGMA)
    settings: dict[str, Any] = {"method": method, "search_radius": search_radius, "backend": "windowed"}
    whole = denoise(image, SIGMA, **settings)
    rounding = 5e-2 if method == "linear" else 5e-3
    assert preview(image, 41, 1, SIGMA, **settings) == pytest.approx(whole[:, 41], abs=rounding)
    monkeypatch.setattr(engine_plan, "tile_shape", lambda *_: (12, 23, 7))
    assert denoise(image, SIGMA, **settings) == pytest.approx(whole, abs=rounding)


@pytest.mark.parametrize("method", SINGLE)
def test_preview_is_a_slice_of_the_whole(method: str) -> None:
    _, image = noisy_piecewise(12, 140, 14, sigma=SIGMA)
    whole = denoise(image, SIGMA, method=method)
    assert preview(image, 71, 1, SIGMA, method=method) == pytest.approx(whole[:, 71], abs=1e-3)


@pytest.mark.parametrize("method", SINGLE)
def test_a_map_of_sigma_beats_one_number_where_noise_varies(method: str) -> None:
    sigma = np.linspace(2, 18, 24) * np.ones((20, 22, 24))
    clean, image = noisy_piecewise(20, 22, 24, sigma=sigma)
    varying, uniform = denoise(image, sigma, method=method), denoise(image, 10.0, method=method)
    assert psnr(clean, varying) > psnr(clean, uniform) + 0.5


@pytest.mark.parametrize("method", SINGLE)
def test_offset_and_scale_of_the_intensities_do_not_matter(method: str) -> None:
    _, image = noisy_piecewise(14, 15, 16, sigma=SIGMA)
    plain = denoise(image, SIGMA, method=method)
    assert denoise(3 * image + 500, 3 * SIGMA, method=method) == pytest.approx(3 * plain + 500, abs=0.02)


@pytest.mark.parametrize("method", SINGLE)
def test_a_constant_volume_and_tiny_ones_come_back(method: str) -> None:
    assert np.array_equal(denoise(np.full((9, 8, 7), 41.5), 3.0, method=method), np.full((9, 8, 7), 41.5))
    for shape in ((1, 1, 1), (2, 3, 2), (1, 5), (5, 1, 7)):
        result = denoise(np.arange(np.prod(shape), dtype=np.float32).reshape(shape), 0.1, method=method)
        assert result.shape == shape
        assert np.isfinite(result).all()


@pytest.mark.parametrize("method", SINGLE)
def test_several_channels(method: str) -> None:
    clean, image = noisy_piecewise(14, 16, 18, sigma=SIGMA)
    several = np.stack([image, 200 - image], axis=-1)
    denoised = denoise(several, SIGMA, method=method, channels=-1)
    assert denoised.shape == several.shape
    assert psnr(clean, denoised[..., 0]) > psnr(clean, image) + 3


@pytest.mark.parametrize("method", METHODS)
def test_every_method_removes_more_the_stronger_it_is(method: str) -> None:
    axes: dict[str, Any] = {"series": -1} if METHODS[method].joint else {}
    image = decaying_series(12, SIGMA)[1] if axes else noisy_piecewise(16, 18, 20, sigma=SIGMA)[1]
    image = image if axes else image + 3 * SIGMA * np.random.default_rng(1).normal(size=image.shape[:1])[:, None, None]
    removed = [
        float((image - denoise(image, SIGMA, method=method, strength=strength, **axes)).std())
        for strength in (0.25, 0.5, 0.75, 1, 1.5, 2, 4)
    ]
    assert removed == sorted(removed)
    assert removed[5] > 1.4 * removed[1]
    assert denoise(image, SIGMA, method=method, strength=1, **axes) == pytest.approx(
        denoise(image, SIGMA, method=method, **axes), abs=0
    )


@pytest.mark.parametrize("method", ["classic", "bayes"])
def test_the_bias_of_magnitudes_is_that_of_the_true_noise_at_any_strength(method: str) -> None:
    air = np.hypot(*(SIGMA * np.random.default_rng(0).standard_normal((2, 16, 18, 20)))).astype(np.float32)
    air[:8] = np.hypot(100 + air[:8], 3.0)
    for strength in (0.7, 2.0):
        denoised = denoise(air, SIGMA, noise="rician", method=method, strength=strength)
        assert abs(denoised[:8].mean() - air[:8].mean()) < 0.3 * SIGMA
        assert denoised[10:].mean() < 0.9 * SIGMA  # the mean magnitude of air is 1.25 sigma


@pytest.mark.parametrize("method", SINGLE)
def test_runs_repeat_bit_for_bit(method: str) -> None:
    _, image = noisy_piecewise(14, 16, 18, sigma=SIGMA)
    assert np.array_equal(denoise(image, SIGMA, method=method), denoise(image, SIGMA, method=method))


@pytest.mark.parametrize("method", ["classic", "patchwise", "pri", "bayes"])
def test_an_image_gives_the_same_result_whichever_axis_of_a_volume_has_length_one(method: str) -> None:
    _, image = noisy_piecewise(1, 24, 26, sigma=SIGMA)
    expected = denoise(image, SIGMA, method=method)
    for axis in (1, 2):
        turned = np.moveaxis(image, 0, axis)
        assert np.moveaxis(denoise(turned, SIGMA, method=method), axis, 0) == pytest.approx(expected, abs=1e-3)


# ---------------------------------------------------------------- registering methods


@pytest.fixture(autouse=True)
def module_of_its_own() -> Iterator[None]:
    """Each test imports the module `thing` that it wrote, and leaves none behind."""
    sys.modules.pop("thing", None)
    yield
    sys.modules.pop("thing", None)


def installed(folder: Path, *entries: str, module: str = "") -> Path:
    """Write a module `thing` into a folder, and the metadata of an installed package that registers methods."""
    (folder / "thing.py").write_text(module)
    metadata = folder / "thing-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[nlmeans.methods]\n" + "".join(f"{entry}\n" for entry in entries))
    return folder


def documented_method() -> str:
    """Return the example of docs/contributing.md, without the line that registers it in the running process."""
    page = (Path(__file__).parents[3] / "docs" / "contributing.md").read_text()
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "def twice(" in block]
    register = 'METHODS["twice"] = TWICE\n'
    assert register in code
    return str(code.replace(register, ""))


@pytest.fixture(scope="module")
def with_twice(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The beginning of a program where a package with the documented method is installed."""
    folder = installed(tmp_path_factory.mktemp("site"), "twice = thing:TWICE", module=documented_method())
    return f"import sys; sys.path.insert(0, {str(folder)!r})\n"


USE = """
import numpy as np
import nlmeans
from nlmeans.methods.registry import method_names

assert "twice" in nlmeans.METHODS and method_names()[-1] == "twice"
assert nlmeans.METHODS["twice"].h == 0.85
noisy = np.random.default_rng(0).standard_normal((12, 13, 14))
twice, once = (nlmeans.denoise(noisy, 1.0, method=method) for method in ("twice", "classic"))
assert twice.std() < noisy.std() / 3 and not np.allclose(twice, once)
assert np.allclose(nlmeans.preview(noisy, 5, sigma=1.0, method="twice"), twice[5], atol=1e-5)
"""


def test_a_method_of_another_package_is_one_of_the_methods(with_twice: str, forks: Forks) -> None:
    code, _, error = forks.python(with_twice + USE).ended()
    assert code == 0, error


def test_the_command_line_offers_it_and_runs_it(with_twice: str, tmp_path: Path, forks: Forks) -> None:
    image = noisy_piecewise(12, 13, 14, sigma=SIGMA)[1]
    NIFTI.save(NIFTI.Nifti1Image(image, np.eye(4)), tmp_path / "in.nii")
    words = ["denoise", tmp_path / "in.nii", tmp_path / "out.nii", "--sigma", SIGMA, "--method", "twice"]
    both = f"from nlmeans.cli import main; main({[str(word) for word in words]}, standalone_mode=False); main(['info'])"
    code, said, error = forks.python(with_twice + both).ended()
    assert code == 0, error
    assert "twice: non-local means with the weights of a first pass" in said
    denoised = NIFTI.load(tmp_path / "out.nii").get_fdata()
    assert 0.3 * SIGMA < (image - denoised).std() < 1.5 * SIGMA


@pytest.mark.parametrize(
    ("entry", "module", "reason"),
    [
        ("broken = thing:MISSING", "", "has no attribute 'MISSING'"),
        ("broken = thing:METHOD", "raise RuntimeError('no licence')", "no licence"),
        ("broken = nowhere:METHOD", "", "No module named 'nowhere'"),
        ("broken = thing:METHOD", "METHOD = print", "is a builtin_function_or_method; give a nlmeans.methods.method"),
        (
            "auto = thing:METHOD",
            "from nlmeans.methods.means import CLASSIC as METHOD",
            "the engine itself defines auto",
        ),
        (
            "classic = thing:METHOD",
            "from nlmeans.methods.means import LINEAR as METHOD",
            "method with this name already",
        ),
    ],
)
def test_an_entry_point_that_does_not_work_is_left_out_with_a_warning(
    entry: str,
    module: str,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.syspath_prepend(installed(tmp_path, entry, module=module))
    registry = Registry(BUILT_IN)
    assert dict(registry) == {name: METHODS[name] for name in BUILT_IN}
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    name, place = entry.split(" = ")
    assert warning.startswith(f"left out the method {name!r} of {place}: ")
    assert reason in warning


def test_names_are_listed_without_importing_a_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = ("another = thing:METHOD", "auto = thing:METHOD", "classic = thing:METHOD")
    monkeypatch.syspath_prepend(installed(tmp_path, *entries, module="raise RuntimeError('no licence')"))
    registry = Registry(BUILT_IN)
    assert registry.names() == (*BUILT_IN, "another")
    assert list(registry) == [*BUILT_IN]
    assert registry.names() == tuple(registry)


def test_a_method_that_cannot_be_loaded_is_refused_in_one_line_when_it_is_chosen(tmp_path: Path, forks: Forks) -> None:
    folder = installed(tmp_path, "broken = thing:METHOD", module="raise RuntimeError('no licence')")
    NIFTI.save(NIFTI.Nifti1Image(noisy_piecewise(12, 13, 14, sigma=SIGMA)[1], np.eye(4)), tmp_path / "in.nii")
    words = ["denoise", str(tmp_path / "in.nii"), str(tmp_path / "out.nii"), "--method", "broken"]
    run = f"import sys; sys.path.insert(0, {str(folder)!r})\nfrom nlmeans.cli import main; main()"
    code, _, said = forks.python(run, *words).ended()
    warning, error = said.splitlines()
    assert warning == "left out the method 'broken' of thing:METHOD: no licence"
    assert error.startswith("Error: method='broken' is not known; choose one of 'auto', 'classic'")
    assert code == 1


def test_entry_points_are_loaded_once_and_may_read_the_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "from nlmeans import METHODS\nMETHOD = METHODS['classic']\nCOUNT = len(METHODS)\n"
    monkeypatch.syspath_prepend(installed(tmp_path, "another = thing:METHOD", module=module))
    registry = Registry(BUILT_IN)
    assert registry["another"] is METHODS["classic"]
    assert list(registry) == [*BUILT_IN, "another"]


def test_a_method_can_be_added_replaced_and_removed_in_the_running_process() -> None:
    registry = Registry(BUILT_IN)
    registry["mine"] = METHODS["dct"]
    registry["classic"] = METHODS["linear"]
    assert registry["mine"] is METHODS["dct"]
    assert registry["classic"] is METHODS["linear"]
    del registry["mine"]
    assert "mine" not in registry
    assert Registry(BUILT_IN)["classic"] is METHODS["classic"]


def test_the_name_auto_and_other_types_are_refused() -> None:
    with pytest.raises(ValueError, match=r"METHODS\['auto'\] cannot be set, because the engine itself defines auto"):
        METHODS["auto"] = METHODS["classic"]
    with pytest.raises(TypeError, match=r"METHODS\['mine'\] is a function; give a nlmeans.methods.method.Method"):
        METHODS["mine"] = lambda tile: tile  # type: ignore[assignment]
    assert "auto" not in METHODS
    assert "mine" not in METHODS


def test_names_are_those_of_the_methods_and_auto() -> None:
    assert method_names() == ("auto", *METHODS)
    assert repr(METHODS).startswith("<methods classic, patchwise, linear")


def test_summaries_are_those_of_the_table_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    for name in BUILT_IN:
        assert f"\n| `{name}` | {METHODS[name].summary}" in readme
