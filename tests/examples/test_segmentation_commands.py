"""Training and prediction from the command line: what is printed, saved and refused."""

from __future__ import annotations

import doctest
import importlib.util
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image


def run(command: Any, *words: object) -> Result:
    return CliRunner().invoke(command.main, [str(word) for word in words])


# tables


def scores(example: Any, dice: list[list[float]], distance: list[list[float]] | None = None) -> Any:
    overlaps = np.array(dice)
    return example.testing.Scores(overlaps, np.ones_like(overlaps) if distance is None else np.array(distance))


def test_the_table_leaves_out_what_is_not_there(example: Any) -> None:
    nan = np.nan
    found = scores(example, [[0.5, nan, nan], [nan] * 3, [0.7, 0.9, nan]], [[2, nan, nan], [nan] * 3, [4, np.inf, nan]])
    row = example.comparing.table({"none": found}, ["a", "b", "c"], "mm").splitlines()[-1]
    assert [cell.strip() for cell in row.split("|")[1:-1]] == [
        *("none", "0.600 ± 0.100", "0.900 ± 0.000", "–", "0.650 ± 0.150", "3.0 ± 1.0, 1 not found")
    ]


@pytest.mark.parametrize(
    ("gains", "said"),
    [
        ([0.1, 0.12, 0.11, 0.1], "bayes helps here: it changes Dice by +0.107"),
        ([-0.1, -0.12, -0.11, -0.1], "bayes harms here"),
        ([0.1, -0.1, 0.05, -0.07], "bayes makes no difference that is sure"),
        ([0.1, 0.1], "With 2 test images nobody can say more"),
    ],
)
def test_a_sentence_says_what_the_table_means_and_how_sure_that_is(example: Any, gains: list[float], said: str) -> None:
    plain = scores(example, [[0.5]] * len(gains))
    better = scores(example, [[0.5 + gain] for gain in gains])
    assert said in example.comparing.verdict({"none": plain, "bayes": better}, one_network=True)


def test_the_examples_of_intervals_hold(example: Any) -> None:
    found = doctest.testmod(example.comparing)
    assert found.attempted == 2
    assert not found.failed


def test_a_network_that_finds_nothing_is_not_compared(example: Any) -> None:
    nothing = scores(example, [[0.0]] * 4)
    said = example.comparing.verdict({"none": nothing, "bayes": nothing}, one_network=True)
    assert said == "Nothing was found in any image: train for more epochs, or with a smaller --learning-rate."


# training


def test_quick_tests_one_clean_network_on_noisy_phantoms(
    example: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(example.train, "QUICK_TEST", 3)
    small = ("--quick", "--phantoms", "6", "--epochs", "1", "--crop", "16", "--denoise", "classic", "--out", tmp_path)
    result = run(example.train, *small)
    assert result.exit_code == 0, result.output
    rows = [line for line in result.output.splitlines() if line.startswith("|")]
    assert [row.split()[1] for row in rows[2:]] == ["none", "classic"]
    assert [cell.strip() for cell in rows[0].split("|")[2:-1]] == [*example.phantoms.STRUCTURES, "mean", "HD95 (mm)"]
    assert "classic" in result.output.split("95 % interval")[0].splitlines()[-2]
    assert "All rows are of the same network" in result.output
    for name in ("best.pt", "curves.png", "test-none.png", "test-classic.png"):
        assert (tmp_path / "none" / name).is_file()
    again = run(example.train, *small)
    assert again.exit_code == 1
    assert "holds a run already" in again.output
    assert "Dice and surface distance of 3 phantoms" in run(example.train, *small, "--resume").output


def pictures(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for part in ("frames", "masks"):
        (folder / part).mkdir()
    for number in range(7):
        mask = np.zeros((30 + number, 40), bool)
        mask[5:20, 10 + number : 25 + number] = True
        noisy = rng.normal(60 + 120 * mask[..., None], 10, (*mask.shape, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / "frames" / f"{number}.png")
        Image.fromarray((255 * mask).astype(np.uint8)).save(folder / "masks" / f"{number}.png")


def test_own_pictures_with_masks_of_0_and_255_get_such_masks(example: Any, tmp_path: Path) -> None:
    pictures(tmp_path)
    (tmp_path / "masks" / "5.png").unlink()
    refused = run(example.train, tmp_path, "--pixdim", "1", "1", "1", "--out", tmp_path / "out")
    assert "--pixdim is for volumes whose files say how large their voxels are" in refused.output
    words = ("--denoise", "classic", "--epochs", "25", "--crop", "16", "--out", tmp_path / "out")
    result = run(example.train, tmp_path, *words)
    assert result.exit_code == 0, result.output
    assert "5.png: has no mask" in result.output
    assert "6 pairs: 4 train, 1 val, 1 test" in result.output
    assert "class 255" in result.output
    assert "HD95 (voxels)" in result.output
    (dice,) = (float(line.split()[3]) for line in result.output.splitlines() if line.startswith("| classic"))
    assert dice > 0.8
    result = run(example.predict, tmp_path / "out" / "classic", tmp_path / "frames", "--out", tmp_path / "found")
    assert result.exit_code == 0, result.output
    found = np.asarray(Image.open(tmp_path / "found" / "5_mask.png"))
    assert found.shape == (35, 40)
    assert set(np.unique(found)) == {0, 255}
    wanted = np.zeros((35, 40), bool)
    wanted[5:20, 15:30] = True
    overlap = 2 * ((found > 0) & wanted).sum() / ((found > 0).sum() + wanted.sum())
    assert overlap > 0.65  # 0.5 if it were turned


def test_what_does_not_fit_is_refused_before_the_training(example: Any, tmp_path: Path) -> None:
    small = ("--phantoms", "6", "--out", tmp_path / "out")
    for words, said in (
        (("--amp",), "amp is for a GPU, but the device is 'cpu'"),
        (("--model", "swinunetr", "--crop", "32"), "swinunetr needs a multiple of 32, at least 64"),
        (("--match", "60", "120", "--denoise", "none", "--denoise", "bayes"), "use one of the two"),
        (("--match", "60", "120", "--noise", "poisson"), "for photon counts leave it out"),
        ((tmp_path, "--quick"), "leave out DATA, or --quick"),
    ):
        result = run(example.train, *small, *words)
        assert result.exit_code == 1
        assert said in result.output
    assert not (tmp_path / "out" / "none").exists()


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="needs tensorboard")
def test_tensorboard_gets_the_curves(example: Any, parts: Any, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    settings = example.settings.Settings(values=(0, 1, 2, 3), crop=16, epochs=2)
    training = example.training.Run(tmp_path, settings, parts, tensorboard=True)
    training.train()
    logged: dict[str, list[float]] = {}
    for file in tmp_path.glob("events.*"):
        events = EventAccumulator(str(file)).Reload()
        logged |= {name: [event.value for event in events.Scalars(name)] for name in events.Tags()["scalars"]}
    assert logged["val_dice"] == pytest.approx([row["val_dice"] for row in training.curves])
    assert "train_loss" in logged


def test_without_tensorboard_the_remedy_is_named(
    example: Any, parts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(example.training, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'nlmeans\[examples\]'"):
        example.training.Run(tmp_path, example.settings.Settings(), parts, tensorboard=True)
    assert not list(tmp_path.iterdir())


# prediction


def turned(example: Any, source: Path, target: Path) -> None:
    """Write a volume with its axes in another order and direction, and with thinner slices."""
    image = nibabel.load(source)
    values = np.repeat(np.asarray(image.dataobj), 2, axis=2)
    affine = image.affine @ np.diag([1, 1, 0.5, 1])
    moved = nibabel.Nifti1Image(values, affine).as_reoriented(
        nibabel.orientations.axcodes2ornt(("I", "P", "L"), labels=None)
    )
    nibabel.save(moved, target)


def test_a_mask_lies_on_the_grid_of_its_image(example: Any, tmp_path: Path) -> None:
    trained = run(example.train, "--phantoms", "8", "--level", "0", "--epochs", "14", "--out", tmp_path)
    assert trained.exit_code == 0, trained.output
    source = tmp_path / "data" / "frames" / "phantom-000.nii.gz"
    (tmp_path / "new").mkdir()
    turned(example, source, tmp_path / "new" / "turned.nii.gz")
    words = (tmp_path / "none", source, tmp_path / "new", "--out", tmp_path / "masks")
    result = run(example.predict, *words)
    assert result.exit_code == 0, result.output
    plain, there = (nibabel.load(tmp_path / "masks" / f"{name}_mask.nii.gz") for name in ("phantom-000", "turned"))
    image = nibabel.load(tmp_path / "new" / "turned.nii.gz")
    assert there.shape == image.shape == (48, 40, 40)
    np.testing.assert_allclose(there.affine, image.affine)
    assert there.get_data_dtype() == np.uint8
    back = nibabel.as_closest_canonical(there)
    agreement = np.asarray(back.dataobj)[..., ::2] == np.asarray(nibabel.as_closest_canonical(plain).dataobj)
    assert agreement.mean() > 0.97
    assert len(np.unique(plain.dataobj)) > 1
    again = run(example.predict, *words)
    assert again.exit_code == 1
    assert "exists already; take another --out" in again.output


def test_images_that_the_network_does_not_know_are_refused(example: Any, parts: Any, tmp_path: Path) -> None:
    settings = example.settings.Settings(values=(0, 1, 2, 3), pixdim=(1.0, 1.0, 1.0), crop=16, epochs=1)
    example.training.Run(tmp_path / "run", settings, parts).train()
    np.save(tmp_path / "bare.npy", np.ones((20, 20, 20), np.float32))
    nibabel.save(nibabel.Nifti1Image(np.ones((20, 20, 20, 3), np.float32), np.eye(4)), tmp_path / "colours.nii")
    (tmp_path / "notes.txt").touch()
    for name, said in (
        ("bare.npy", "does not say how large its voxels are"),
        ("colours.nii", "has 3 axes and 3 channel"),
        ("notes.txt", "its name does not end in any of"),
    ):
        result = run(example.predict, tmp_path / "run", tmp_path / name, "--out", tmp_path / "out")
        assert result.exit_code == 1
        assert said in result.output
    saved = tmp_path / "run" / "settings.json"
    saved.write_text(saved.read_text(encoding="utf-8").replace('"amp": false', '"amp": true'), encoding="utf-8")
    assert not example.settings.saved_settings(tmp_path / "run", "cpu").amp
    assert example.settings.saved_settings(tmp_path / "run", "cuda").amp
    elsewhere = run(example.predict, tmp_path, tmp_path / "bare.npy")
    assert "this is not the folder of a run" in elsewhere.output


def test_a_volume_of_one_slice_gets_a_mask_of_one_slice(example: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    affine = np.diag([-2.0, 2.0, 5.0, 1.0])
    for number in range(4):
        mask = np.zeros((20, 24, 1), np.uint8)
        mask[4:14, 6:16] = 7
        for part, values in (("frames", mask * 20 + rng.normal(50, 5, mask.shape)), ("masks", mask)):
            (tmp_path / part).mkdir(exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(values.astype(np.int16), affine), tmp_path / part / f"{number}.nii")
    words = ("--crop", "16", "--epochs", "12", "--denoise", "classic", "--out", tmp_path / "out")
    trained = run(example.train, tmp_path, *words)
    assert trained.exit_code == 0, trained.output
    result = run(
        example.predict, tmp_path / "out" / "classic", tmp_path / "frames" / "0.nii", "--out", tmp_path / "new"
    )
    assert result.exit_code == 0, result.output
    found = nibabel.load(tmp_path / "new" / "0_mask.nii.gz")
    assert found.shape == (20, 24, 1)
    np.testing.assert_allclose(found.affine, affine)
    assert set(np.unique(found.dataobj)) == {0, 7}
