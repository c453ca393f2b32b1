"""The segmentation pipeline pairs, splits, trains, stops, resumes and tests as it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image


def settings(example: Any, **changes: Any) -> Any:
    return example.settings.Settings(values=(0, 1, 2, 3), crop=16, **changes)


def empty_files(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


# pairs


def test_files_are_paired_by_name_whatever_their_ending(example: Any, tmp_path: Path) -> None:
    empty_files(tmp_path, "frames/b.nii.gz", "frames/a.jpg", "masks/a.png", "masks/b.nii")
    found, remarks = example.pairs.find(tmp_path)
    assert [(pair["name"], Path(pair["image"]).name, Path(pair["label"]).name) for pair in found] == [
        ("a", "a.jpg", "a.png"),
        ("b", "b.nii.gz", "b.nii"),
    ]
    assert not remarks


def test_a_file_without_partner_is_named_and_left_out(example: Any, tmp_path: Path) -> None:
    empty_files(tmp_path, "frames/a.png", "frames/only.png", "frames/notes.txt", "masks/a.png", "masks/other.png")
    found, remarks = example.pairs.find(tmp_path)
    assert [pair["name"] for pair in found] == ["a"]
    assert len(remarks) == 3
    for remark, words in zip(remarks, ("notes.txt", "only.png: has no mask", "other.png: has no frame"), strict=True):
        assert words in remark


def test_two_files_of_one_name_are_refused(example: Any, tmp_path: Path) -> None:
    empty_files(tmp_path, "frames/a.png", "frames/a.jpg", "masks/a.png")
    with pytest.raises(ValueError, match=r"a\.jpg and a\.png have the same name"):
        example.pairs.find(tmp_path)


def test_a_folder_without_pairs_or_without_masks_is_refused(example: Any, tmp_path: Path) -> None:
    empty_files(tmp_path, "frames/a.png")
    with pytest.raises(ValueError, match="masks: no such folder"):
        example.pairs.find(tmp_path)
    empty_files(tmp_path, "masks/b.png")
    with pytest.raises(ValueError, match=r"(?s)has a mask of the same name.*a\.png: has no mask.*b\.png: has no frame"):
        example.pairs.find(tmp_path)


def test_the_split_is_70_20_10_disjoint_and_complete(example: Any) -> None:
    pairs = [{"name": str(number)} for number in range(100)]
    split = example.pairs.split(pairs, seed=3)
    assert {part: len(split[part]) for part in split} == {"train": 70, "val": 20, "test": 10}
    assert {pair["name"] for part in split.values() for pair in part} == {pair["name"] for pair in pairs}


def test_the_split_depends_on_the_seed_alone(example: Any) -> None:
    pairs = [{"name": str(number)} for number in range(20)]
    assert example.pairs.split(pairs, seed=1) == example.pairs.split(pairs, seed=1)
    assert example.pairs.split(pairs, seed=1) != example.pairs.split(pairs, seed=2)


@pytest.mark.parametrize("count", range(1, 30))
def test_no_part_is_empty_or_the_pairs_are_refused(example: Any, count: int) -> None:
    pairs = [{"name": str(number)} for number in range(count)]
    if count < 3:
        with pytest.raises(ValueError, match=f"{count} pairs cannot be split"):
            example.pairs.split(pairs, seed=0)
    else:
        split = example.pairs.split(pairs, seed=0)
        assert all(split.values())
        assert sum(map(len, split.values())) == count


# phantoms


def test_the_same_seed_gives_the_same_anatomy_at_every_noise(example: Any, tmp_path: Path) -> None:
    for noise in (0, 20):
        example.phantoms.write(tmp_path / str(noise), count=1, noise=noise, seed=4)

    def read(name: str) -> np.ndarray:
        return np.asarray(nibabel.load(tmp_path / name / "phantom-000.nii.gz").dataobj)

    np.testing.assert_array_equal(read("0/masks"), read("20/masks"))
    assert set(np.unique(read("0/masks"))) == {0, 1, 2, 3}
    clean, noisy = read("0/frames").astype(float), read("20/frames")
    body = clean > 400
    assert np.std((noisy - clean)[body]) == pytest.approx(0.2 * example.phantoms.BODY, rel=0.05)


# loading


def test_all_that_differs_is_the_denoising(example: Any) -> None:
    plain, *others = (
        [type(step) for step in example.loading.preparation(settings(example, denoise=kind))]
        for kind in example.loading.DENOISE
    )
    for steps in others:
        assert len(steps) == len(plain) + 1
        assert steps[:4] + steps[5:] == plain


def test_each_denoising_is_nearer_to_the_clean_image(example: Any, tmp_path: Path) -> None:
    images = {}
    for noise in (0, 10):
        example.phantoms.write(tmp_path / str(noise), count=1, noise=noise, seed=0)
    for noise, kind in ((0, "none"), *((10, kind) for kind in example.loading.DENOISE)):
        found, _ = example.pairs.find(tmp_path / str(noise))
        data = example.loading.evaluation_data(settings(example, denoise=kind), found)
        images[noise, kind] = data[0]["image"]
    error = {kind: (images[10, kind] - images[0, "none"]).std() for kind in example.loading.DENOISE}
    assert error["bayes"] < error["classic"] < error["none"]
    assert error["gaussian"] < error["none"]


def test_a_mask_of_another_shape_is_refused(example: Any, tmp_path: Path) -> None:
    for part, size in (("frames", 20), ("masks", 21)):
        (tmp_path / part).mkdir()
        Image.fromarray(np.ones((20, size), np.uint8)).save(tmp_path / part / "a.png")
    found, _ = example.pairs.find(tmp_path)
    with pytest.raises(ValueError, match=r"a\.png: has channels and shape \(1, 21, 20\), its image \(1, 20, 20\)"):
        example.kinds.kind(found)


def picture(folder: Path, frame: Image.Image, mask: Image.Image) -> None:
    for part, image in (("frames", frame), ("masks", mask)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        image.save(folder / part / "a.png")


GREY = Image.fromarray(np.arange(400, dtype=np.uint8).reshape(20, 20))
DISC = Image.fromarray((np.indices((20, 20)).sum(0) < 15).astype(np.uint8) * 255)


@pytest.mark.parametrize(
    ("mode", "channels"), [("L", 1), ("LA", 1), ("I;16", 1), ("RGB", 3), ("RGBA", 3), ("P", 3), ("1", 1)]
)
def test_pictures_are_grey_or_rgb_however_they_are_stored(
    example: Any, tmp_path: Path, mode: str, channels: int
) -> None:
    picture(tmp_path, GREY.convert(mode), DISC)
    kind = example.kinds.kind(example.pairs.find(tmp_path)[0])
    assert (kind.dims, kind.channels, kind.values) == (2, channels, (0, 255))


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_a_grey_mask_may_be_stored_as_rgb(example: Any, tmp_path: Path, mode: str) -> None:
    picture(tmp_path, GREY, DISC.convert(mode))
    assert example.kinds.kind(example.pairs.find(tmp_path)[0]).values == (0, 255)


def test_the_numbers_of_a_mask_with_a_palette_are_its_indices(example: Any, tmp_path: Path) -> None:
    mask = Image.fromarray(np.asarray(DISC) // 255 * 2)
    mask.putpalette([0, 0, 0, 9, 9, 9, 200, 30, 10])
    picture(tmp_path, GREY, mask)
    assert example.kinds.kind(example.pairs.find(tmp_path)[0]).values == (0, 2)


def test_a_coloured_mask_is_refused(example: Any, tmp_path: Path) -> None:
    picture(tmp_path, GREY, Image.merge("RGB", (DISC, GREY, GREY)))
    with pytest.raises(ValueError, match=r"a mask has one channel \(no colours\)"):
        example.kinds.kind(example.pairs.find(tmp_path)[0])


def test_a_mask_that_is_a_jpeg_is_refused(example: Any, tmp_path: Path) -> None:
    empty_files(tmp_path, "frames/a.png", "masks/a.JPG")
    with pytest.raises(ValueError, match=r"a\.JPG: JPEG changes the numbers of a mask"):
        example.pairs.find(tmp_path)


def test_a_file_that_cannot_be_read_is_named_with_the_cause(example: Any, tmp_path: Path) -> None:
    picture(tmp_path, GREY, DISC)
    (tmp_path / "frames" / "a.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"a\.png cannot be read: cannot identify image file"):
        example.kinds.kind(example.pairs.find(tmp_path)[0])


def volumes(folder: Path, shape: tuple[int, ...], mask_affine: np.ndarray) -> None:
    for part, affine in (("frames", np.eye(4)), ("masks", mask_affine)):
        (folder / part).mkdir()
        image = (np.indices(shape).sum(0) % 7 < 3).astype(np.uint8)
        nibabel.save(nibabel.Nifti1Image(image, affine), folder / part / "a.nii.gz")


def test_a_mask_that_lies_elsewhere_is_refused(example: Any, tmp_path: Path) -> None:
    volumes(tmp_path, (20, 20, 8), np.diag([-1.0, 1, 1, 1]))
    with pytest.raises(ValueError, match=r"masks.a\.nii\.gz: lies elsewhere in space"):
        example.kinds.kind(example.pairs.find(tmp_path)[0])


@pytest.mark.parametrize("denoise", ["none", "gaussian", "classic", "bayes"])
def test_a_volume_of_one_slice_is_an_image(example: Any, tmp_path: Path, denoise: str) -> None:
    volumes(tmp_path, (20, 24, 1), np.eye(4))
    found, _ = example.pairs.find(tmp_path)
    kind = example.kinds.kind(found)
    assert (kind.dims, kind.flat) == (2, True)
    chosen = example.settings.Settings(**kind._asdict(), denoise=denoise, crop=16)
    (item,) = example.loading.evaluation_data(chosen, found)
    assert item["image"].shape == (1, 20, 24)
    assert item["label"].shape == (1, 20, 24)


def test_an_image_is_not_taken_for_a_mask(example: Any, tmp_path: Path) -> None:
    image = np.arange(400, dtype=np.float32).reshape(20, 20)
    for part in ("frames", "masks"):
        (tmp_path / part).mkdir()
        np.save(tmp_path / part / "a.npy", image)
    found, _ = example.pairs.find(tmp_path)
    with pytest.raises(ValueError, match="a mask holds one whole number per class"):
        example.kinds.kind(found)


# training


def test_a_resumed_run_is_the_run_that_was_never_stopped(example: Any, parts: Any, tmp_path: Path) -> None:
    whole = example.training.Run(tmp_path / "whole", settings(example, epochs=4), parts)
    network = whole.train()
    example.training.Run(tmp_path / "halves", settings(example, epochs=2), parts).train()
    resumed = example.training.Run(tmp_path / "halves", settings(example, epochs=4), parts, resume=True)
    assert [row["epoch"] for row in resumed.curves] == [1, 2]
    continued = resumed.train()
    assert resumed.curves == whole.curves
    for ours, theirs in zip(continued.state_dict().values(), network.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    assert resumed.stopping.state_dict() == whole.stopping.state_dict()
    assert sorted(path.name for path in (tmp_path / "halves").iterdir()) == sorted(
        path.name for path in (tmp_path / "whole").iterdir()
    )


def test_training_stops_when_nothing_improves_and_stays_stopped(example: Any, parts: Any, tmp_path: Path) -> None:
    never = settings(example, epochs=9, patience=2, min_delta=1.0)
    run = example.training.Run(tmp_path, never, parts)
    run.train()
    assert len(run.curves) == 3
    again = example.training.Run(tmp_path, never, parts, resume=True)
    again.train()
    assert len(again.curves) == 3


@pytest.mark.parametrize(("monitor", "mode"), [("val_dice", "max"), ("val_loss", "min"), ("val_loss", "max")])
def test_the_best_network_is_kept(example: Any, parts: Any, tmp_path: Path, monitor: str, mode: str) -> None:
    chosen = settings(example, epochs=4, monitor=monitor, mode=mode, learning_rate=0.02)
    run = example.training.Run(tmp_path, chosen, parts)
    network = run.train()
    wanted = {"max": max, "min": min}[mode](row[monitor] for row in run.curves)
    data = example.loading.evaluation_data(chosen, parts["val"])
    engine = example.testing.evaluator(network, chosen, data)
    engine.run()
    assert float(engine.state.metrics[monitor]) == pytest.approx(wanted, rel=1e-5)


def test_a_run_is_neither_overwritten_nor_mixed_with_another(example: Any, parts: Any, tmp_path: Path) -> None:
    example.training.Run(tmp_path, settings(example, epochs=1), parts)
    with pytest.raises(ValueError, match="holds a run already"):
        example.training.Run(tmp_path, settings(example), parts)
    with pytest.raises(ValueError, match="was trained with denoise='none', now 'gaussian'"):
        example.training.Run(tmp_path, settings(example, denoise="gaussian"), parts, resume=True)
    swapped = {**parts, "val": parts["test"], "test": parts["val"]}
    with pytest.raises(ValueError, match="another split"):
        example.training.Run(tmp_path, settings(example), swapped, resume=True)


def test_a_crop_that_the_network_cannot_halve_twice_is_refused(example: Any) -> None:
    with pytest.raises(ValueError, match="crop is 18; unet needs a multiple of 4, at least 8"):
        example.settings.Settings(crop=18)


def test_a_resumed_run_with_workers_draws_the_same_numbers(example: Any, parts: Any, tmp_path: Path) -> None:
    chosen = {"workers": 1, "schedule": "cosine"}
    whole = example.training.Run(tmp_path / "whole", settings(example, epochs=2, **chosen), parts)
    whole.train()
    halves = example.training.Run(tmp_path / "halves", settings(example, epochs=2, **chosen), parts)
    halves.trainer.add_event_handler(example.training.Events.EPOCH_COMPLETED(once=1), halves.trainer.terminate)
    halves.train()
    assert len(halves.curves) == 1
    resumed = example.training.Run(tmp_path / "halves", settings(example, epochs=2, **chosen), parts, resume=True)
    resumed.train()
    assert resumed.curves == whole.curves
    assert [row["learning_rate"] for row in resumed.curves] == pytest.approx([0.01, 0.005])
    with pytest.raises(ValueError, match="was trained with epochs=2, now 3"):
        example.training.Run(tmp_path / "halves", settings(example, epochs=3, **chosen), parts, resume=True)


def test_the_learning_rate_falls_when_nothing_improves(example: Any, parts: Any, tmp_path: Path) -> None:
    never = settings(example, epochs=5, patience=4, min_delta=1.0)
    run = example.training.Run(tmp_path, never, parts)
    run.train()
    assert [row["learning_rate"] for row in run.curves] == [0.01, 0.01, 0.01, 0.01, 0.005]


# networks


@pytest.mark.parametrize("non_local", [False, True])
@pytest.mark.parametrize(
    ("model", "dims", "size"),
    [("unet", 3, 16), ("segresnet", 3, 16), ("dynunet", 3, 16), ("unet", 2, 16), ("swinunetr", 2, 64)],
)
def test_every_network_learns_and_a_new_block_changes_nothing(
    example: Any, model: str, dims: int, size: int, non_local: bool
) -> None:
    if model == "swinunetr":
        pytest.importorskip("einops")
    torch.manual_seed(0)
    network = example.networks.build(model, dims, 2, 3, non_local).eval()
    torch.manual_seed(0)
    plain = example.networks.build(model, dims, 2, 3).eval()
    image = torch.rand(1, 2, *(size,) * dims)
    found = network(image)
    assert found.shape == (1, 3, *image.shape[2:])
    blocks = [module for module in network.modules() if type(module).__name__ == "NonLocalBlock"]
    assert len(blocks) == non_local
    if non_local:
        assert torch.equal(found, plain(image))
        found.square().sum().backward()
        assert bool(blocks[0].out.weight.grad.any())


def test_swinunetr_without_einops_names_the_remedy(example: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(example.networks, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs einops: pip install 'nlmeans\[examples\]'"):
        example.networks.build("swinunetr", 3, 1, 2)


# one grid


def test_volumes_of_any_orientation_and_voxel_size_come_to_one_grid(example: Any, tmp_path: Path) -> None:
    example.phantoms.write(tmp_path, count=2, noise=0, seed=0)
    for part in ("frames", "masks"):
        path = tmp_path / part / "phantom-001.nii.gz"
        image = nibabel.load(tmp_path / part / "phantom-000.nii.gz")
        thick = nibabel.Nifti1Image(np.asarray(image.dataobj)[:, :, ::2], image.affine @ np.diag([1, 1, 2, 1]))
        codes = nibabel.orientations.axcodes2ornt(("S", "L", "P"))
        nibabel.save(thick.as_reoriented(codes), path)
    found, _ = example.pairs.find(tmp_path)
    kind = example.kinds.kind(found)
    assert kind.pixdim == (1.0, 1.0, 1.5)
    first, second = example.loading.evaluation_data(example.settings.Settings(**kind._asdict()), found)
    assert first["image"].shape == (1, 40, 40, 16)
    for one in (first, second):
        np.testing.assert_allclose(one["image"].pixdim, [1, 1, 1.5], rtol=1e-3)
    assert abs(second["image"].shape[-1] - 16) <= 1
    same = (first["label"] == second["label"][..., :16]).float().mean()
    assert same > 0.95
    assert first["label"].dtype == torch.uint8


def test_noise_is_raised_anew_in_each_epoch_but_measured_once(example: Any, parts: Any) -> None:
    raised = settings(example, match=(60.0, 180.0))
    data = example.loading.training_data(raised, parts["train"])
    assert "noise_model" in data._cache[0]["image"].meta
    (first,), (second,) = data[0], data[0]
    assert not torch.equal(first["image"], second["image"])
    assert "noise_model" not in example.loading.evaluation_data(raised, parts["train"])[0]["image"].meta


def test_the_distance_is_in_millimetres_and_infinite_where_nothing_is_found(example: Any) -> None:
    label = torch.zeros(1, 1, 16, 16, 16, dtype=torch.uint8)
    label[..., 4:8, 4:8, 4:8] = 1
    moved = label.roll(2, -1)
    chosen = example.settings.Settings(values=(0, 1, 2), crop=16, pixdim=(1.0, 1.0, 3.0))

    def network(image: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(moved[0].long(), 3).moveaxis(-1, 1).float()

    data = [{"image": torch.zeros(1, 16, 16, 16), "label": label[0]}]
    scores = example.testing.test(network, chosen, data)
    assert scores.distance[0, 0] == pytest.approx(6)
    assert np.isnan(scores.distance[0, 1])
    moved = torch.zeros_like(label)
    assert np.isinf(example.testing.test(network, chosen, data).distance[0, 0])
