"""The wall: odd files, and what must come of each.

A line is a name, how to build the file, and the outcome at the command line and in Python: the type in which a sound
file is stored again, or words of the error. `Denoised` says what else must hold. Other outcomes follow where MONAI or
napari, which have readers of their own, or Python differ.
"""

from __future__ import annotations

import numpy as np

from tests.nlmeans.scans import OBLIQUE, RAS, SAGITTAL
from tests.real_files import dicom_files as dicom
from tests.real_files import nifti_files as nib
from tests.real_files import other_files as other
from tests.real_files.cases import Case, Denoised, Foreign, Refused, unread
from tests.real_files.installed import of_nibabel, of_nicom, of_pydicom, of_scikit_image
from tests.real_files.volumes import SHAPE, labels, volume, with_values

UINT8, INT8, UINT16, INT16 = Denoised("uint8"), Denoised("int8"), Denoised("uint16"), Denoised("int16")
UINT32, INT32, INT64 = Denoised("uint32"), Denoised("int32"), Denoised("int64")
FLOAT32, FLOAT64, COMPLEX64 = Denoised("float32"), Denoised("float64"), Denoised("complex64")
SCALED = Denoised("int16", tolerance=0.26, in_python="float64")

DAMAGED = Refused("cannot be read; it may be damaged or not an image")
COLOURS = Refused("holds colours")
UNKNOWN = Refused("is in no format that nlmeans knows by its ending")
NO_VOLUMES = Refused("only 2D, 3D and series")
NO_VOLUME = Refused("do not form a volume of parallel slices at even distances")
NO_MARK = Refused("lacks the mark DICM")
CHANNEL_FIRST = Refused("give one image, channel first")

NO_READER = Foreign("there is no reader for this format")
NO_AXES = Foreign("its reader does not take as many axes")
FRAMES = Foreign("its reader stacks the frames along one axis, without their scaling")
BACKWARDS = Foreign("its reader begins with the last slice")
DIRECTIONS = Foreign("its reader needs a direction for each axis")

NIFTI = [
    Case("int16", nib.nifti(volume()), INT16),
    Case("uint8, not packed", nib.nifti(volume("uint8"), "scan.nii", RAS), UINT8),
    Case("float64, sagittal", nib.nifti(volume("float64"), affine=SAGITTAL), FLOAT64),
    Case("oblique with shear", nib.nifti(volume("float32"), affine=OBLIQUE), FLOAT32),
    Case("big-endian int16", nib.nifti(volume(">i2")), INT16),
    Case("big-endian float32", nib.nifti(volume(">f4")), FLOAT32),
    Case("int8", nib.nifti(volume("uint8").astype("int16").clip(0, 127).astype("int8")), INT8),
    Case("uint16 near its end", nib.nifti(volume("uint16") + np.uint16(65000)), UINT16),
    Case("uint32", nib.nifti(volume("uint32")), UINT32),
    Case("int32, far from 0", nib.nifti(volume("int32") - 10**6), INT32),
    Case("int64", nib.nifti(volume("int64")), INT64),
    Case(
        "slope and intercept",
        nib.nifti(volume(), scaling=(0.5, -3)),
        SCALED,
    ),
    Case(
        "negative slope",
        nib.nifti(volume(), scaling=(-0.5, 300)),
        SCALED,
    ),
    Case("slope 0", nib.nifti(volume(), "scan.nii", scl_slope=0.0, scl_inter=7.0), INT16),
    Case("slope NaN", nib.nifti(volume(), "scan.nii", scl_slope=np.nan), INT16),
    Case("NIfTI-2", nib.plain(volume(), kind="Nifti2Image"), INT16),
    Case("one image", nib.plain(volume()[:, :, 5]), INT16, napari=NO_AXES),
    Case("one slice", nib.plain(volume()[:, :, 5:6]), INT16),
    Case("four axes, one volume", nib.plain(volume()[..., None]), INT16),
    Case(
        "five axes, one volume",
        nib.plain(volume()[..., None, None]),
        INT16,
        monai=CHANNEL_FIRST,
        napari=NO_AXES,
    ),
    Case("three volumes", nib.nifti(volume("int16", 3)), INT16),
    Case(
        "three times of two echoes",
        nib.plain(volume("int16", 6).reshape(*SHAPE, 3, 2)),
        INT16,
        monai=CHANNEL_FIRST,
        napari=NO_AXES,
    ),
    Case("a vector at each voxel", nib.plain(volume("float32", 3)[..., None, :]), NO_VOLUMES),
    Case("lengths in µm", nib.in_microns(), INT16),
    Case("no place", nib.unplaced(volume()), INT16),
    Case("qform and sform differ", nib.two_places(), INT16),
    Case(
        "voxels of size 0",
        nib.nifti(volume(), pixdim=[0] * 8),
        Denoised("int16", "should be non-zero", keeps_header=False),
    ),
    Case("labels", nib.plain(labels()), UINT8),
    Case("constant", nib.plain(np.full(SHAPE, 7, "int16")), INT16),
    Case(
        "NaN outside",
        nib.plain(with_values("outside", np.nan)),
        Denoised("float32", "voxels are NaN: they count as outside"),
    ),
    Case(
        "NaN everywhere",
        nib.plain(with_values("everywhere", np.nan)),
        Refused("NaN everywhere"),
        monai=FLOAT32,
        napari=FLOAT32,
    ),
    Case("one infinite voxel", nib.plain(with_values("one", np.inf)), Refused("inf")),
    Case(
        "complex",
        nib.plain(volume("complex64")),
        COMPLEX64,
        monai=Foreign("its reader drops the imaginary part"),
        napari=NO_READER,
    ),
    Case("colours", nib.colours(), COLOURS),
    Case("cut short", nib.damaged("cut"), DAMAGED),
    Case("cut short, not packed", nib.damaged("cut, not packed"), Refused("100 bytes shorter than")),
    Case(
        "longer than it says",
        nib.damaged("longer"),
        Refused("longer than"),
        monai=FLOAT32,
        napari=FLOAT32,
    ),
    Case("empty", nib.damaged("empty"), DAMAGED),
    Case("a page of a web server", nib.damaged("text"), DAMAGED),
    Case("packed without saying so", nib.damaged("packed, named .nii"), DAMAGED),
    Case("not packed, named .nii.gz", nib.damaged("not packed, named .nii.gz"), DAMAGED),
    Case("in capitals", nib.damaged("in capitals"), FLOAT32, napari=NO_READER),
    Case("without an ending", nib.damaged("without an ending"), Refused("give it the right ending")),
    Case("NIfTI, named .nrrd", nib.damaged("NIfTI, named .nrrd"), DAMAGED),
    Case("NIfTI, named .dcm", nib.damaged("NIfTI, named .dcm"), NO_MARK),
    Case("pair", nib.plain(volume(), "scan.hdr", kind="Nifti1Pair"), INT16, NO_READER, NO_READER),
    Case(
        "Analyze",
        nib.plain(volume(), "scan.img", kind="Spm2AnalyzeImage"),
        Denoised("int16", "is Analyze"),
        monai=NO_READER,
    ),
    Case("header without voxels", nib.header_alone(), Refused("needs the file scan.img, which is not there")),
]

OF_NIBABEL = [
    Case("nibabel's anatomical", of_nibabel("anatomical.nii"), INT16),
    Case("nibabel's functional", of_nibabel("functional.nii"), Denoised("int16", tolerance=0.05, in_python="float64")),
    Case("nibabel's NIfTI-2", of_nibabel("example_nifti2.nii.gz"), INT16),
    Case("CIFTI", of_nibabel("row_major.dconn.nii", values=False), Refused("which has no voxels")),
    *unread(
        Case("MGZ of two volumes", of_nibabel("test.mgz"), FLOAT32),
        Case("MINC1", of_nibabel("tiny.mnc"), FLOAT64),
        Case("MINC1, time first", of_nibabel("minc1_4d.mnc", time_first=True), FLOAT64),
        Case("MINC2", of_nibabel("small.mnc"), FLOAT64),
        Case("MINC2, time first", of_nibabel("minc2_4d.mnc", time_first=True), FLOAT64),
        Case("PAR/REC", of_nibabel("phantom_EPI_asc_CLEAR_2_1.PAR", "phantom_EPI_asc_CLEAR_2_1.REC"), FLOAT64),
        Case("PAR without REC", of_nibabel("fieldmap.PAR", values=False), Refused("needs the file fieldmap.REC")),
        Case("AFNI", of_nibabel("scaled+tlrc.HEAD", "scaled+tlrc.BRIK"), FLOAT64),
        Case("ECAT", of_nibabel("tinypet.v"), Denoised("float64", tolerance=1e4)),
        Case("tractogram", of_nibabel("simple.trk", values=False), UNKNOWN),
        monai=NO_READER,
        napari=NO_READER,
    ),
]

FREESURFER = unread(
    Case("MGZ of int32", nib.freesurfer(volume("int32")), INT32),
    Case("MGH of uint8", nib.freesurfer(volume("uint8"), "scan.mgh"), UINT8),
    Case("MGZ of volumes", nib.freesurfer(volume("float32", 3)), FLOAT32),
    monai=NO_READER,
    napari=NO_READER,
)

NRRD = [
    Case("NRRD", other.itk(volume(), "scan.nrrd"), INT16),
    Case("NRRD, left-anterior-superior", other.nrrd(volume()), INT16),
    Case("NRRD, right-anterior-superior", other.nrrd(volume(), space="right-anterior-superior"), INT16),
    Case("NRRD without space", other.nrrd(volume("float32"), space=""), FLOAT32, monai=DIRECTIONS),
    Case("NRRD of text", other.nrrd(volume(), encoding="ascii"), INT16),
    Case("NRRD, big-endian", other.nrrd(volume(">i2")), INT16),
    Case("NRRD, volumes first", other.nrrd(np.moveaxis(volume("int16", 3), -1, 0)), INT16, monai=DIRECTIONS),
    Case("NRRD of complex numbers", other.itk(volume("complex64"), "scan.nrrd"), COMPLEX64, NO_READER, NO_READER),
    Case("NRRD header alone", other.nrrd(volume(), apart="missing.raw"), Refused("missing.raw")),
]

ITK = unread(
    Case("NRRD header, raw voxels", other.nrrd(volume(), apart="scan.raw"), INT16),
    Case("NRRD header, packed voxels", other.nrrd(volume(), apart="scan.raw.gz", encoding="gzip"), INT16),
    Case("MetaImage, packed", other.itk(volume("float32"), "scan.mha", compressed=True), FLOAT32),
    Case("MetaImage header", other.itk(volume("uint16"), "scan.mhd"), UINT16),
    Case("MetaImage of one image", other.itk(volume()[:, :, 5], "scan.mha"), INT16),
    Case("MetaImage of three volumes", other.itk(volume("int16", 3), "scan.mha"), INT16),
    Case("MetaImage of vectors", other.itk(volume("float32", 3), "scan.mha", vectors=True), FLOAT32),
    Case("MetaImage of colours", other.itk_colours("scan.mha"), COLOURS),
    monai=NO_READER,
)

UINT8_SIZE, UINT16_SIZE, FLOAT32_SIZE = (Denoised(one, "no voxel size along") for one in ("uint8", "uint16", "float32"))

TIFF = unread(
    Case("TIFF of one page", other.tiff(other.stack("uint8", "YX"), "YX"), UINT8_SIZE),
    Case("TIFF of pages", other.tiff(other.stack(), "ZYX"), UINT16_SIZE),
    Case("TIFF, deflated", other.tiff(other.stack(), "ZYX", compression="zlib"), UINT16_SIZE),
    Case(
        "TIFF, big-endian, in tiles", other.tiff(other.stack(">u2"), "ZYX", byteorder=">", tile=(16, 16)), UINT16_SIZE
    ),
    Case("BigTIFF of float32", other.tiff(other.stack("float32"), "ZYX", bigtiff=True), FLOAT32_SIZE),
    Case("TIFF, packed with LZW", other.lzw(), other.LZW),
    Case("ImageJ stack", other.imagej(other.stack(), "ZYX"), UINT16),
    Case("ImageJ hyperstack", other.imagej(other.stack("float32", "TZCYX"), "TZCYX"), FLOAT32, napari=NO_AXES),
    Case("OME-TIFF", other.ome(other.stack(), "ZYX"), UINT16),
    Case("OME-TIFF, channels first", other.ome(other.stack("uint16", "CZYX"), "CZYX"), UINT16),
    Case("TIFF of colours", of_scikit_image("multipage_rgb.tif"), COLOURS),
    Case("PNG", of_scikit_image("camera.png"), UNKNOWN),
    monai=NO_READER,
)

INT16_PLACE, INT32_PLACE, UINT8_PLACE, FLOAT32_PLACE = (
    Denoised(one, "has no geometry") for one in ("int16", "int32", "uint8", "float32")
)

NUMPY = unread(
    Case("npy", other.npy(volume("float32")), FLOAT32_PLACE),
    Case("npy in Fortran's order", other.npy(np.asfortranarray(volume())), INT16_PLACE),
    Case("npy, big-endian", other.npy(volume(">i4")), INT32_PLACE),
    Case("npy of truth values", other.npy(volume("bool")), UINT8_PLACE),
    Case("npy of float16", other.npy(volume("float16")), FLOAT32_PLACE),
    Case("npy of five axes", other.npy(np.zeros((2, 3, 4, 5, 6))), NO_VOLUMES, napari=FLOAT64),
    Case("npy of objects", other.npy(np.array([{}, None])), Refused("Python objects")),
    Case("npy of names", other.npy(np.array([["a", "b"]])), Refused("not numbers")),
    monai=Refused("spacing='affine' needs an image with an affine"),
)

DICOM = [
    Case("DICOM series", dicom.series(volume()), INT16),
    Case("DICOM, Hounsfield units", dicom.hounsfield(), INT32),
    Case("DICOM, a slope for each slice", dicom.slopes(), FLOAT32, napari=Foreign("its reader overflows")),
    Case("DICOM, numbered backwards", dicom.series(volume(), backwards=True), INT16, monai=BACKWARDS),
    Case("DICOM, one slice", dicom.series(volume()[..., :1], file=True), INT16),
    Case("DICOM, black is white", dicom.series(volume(), PhotometricInterpretation="MONOCHROME1"), INT16),
    Case("DICOM, 12 of 16 bits", dicom.series(volume("uint16"), BitsStored=12, HighBit=11), INT16),
    Case("DICOM, run-length encoded", dicom.changed("run-length encoded"), INT16, napari=NO_READER),
    Case("DICOM, times", dicom.times(3), UINT16, monai=FRAMES, napari=FRAMES),
    Case("DICOM, enhanced", dicom.enhanced(), UINT16, monai=FRAMES, napari=FRAMES),
    Case("DICOM, enhanced, two echoes", dicom.enhanced(2), UINT16, monai=FRAMES, napari=FRAMES),
    Case("DICOM, a slice is missing", dicom.without_slice(), Refused("lacks 1 of 11 slices")),
    Case("DICOM, tilted gantry", dicom.changed("tilted gantry"), NO_VOLUME, monai=INT16, napari=INT16),
    Case("DICOM, two series", dicom.changed("two series"), Refused("holds 2 series"), monai=INT16),
    Case("DICOM, no place", dicom.changed("no place"), Refused("has no ImagePositionPatient"), INT16, INT16),
    Case("DICOM, damaged JPEG", dicom.changed("damaged JPEG"), Refused("is compressed as JPEG Lossless")),
]

OF_PYDICOM = [
    Case("CT", of_pydicom("CT_small.dcm"), INT32),
    Case("MR", of_pydicom("MR_small.dcm"), INT16),
    Case("MR, big-endian", of_pydicom("MR_small_bigendian.dcm"), INT16),
    Case("MR, run-length encoded", of_pydicom("MR_small_RLE.dcm"), INT16, napari=NO_READER),
    Case("MR, cut short", of_pydicom("MR_truncated.dcm", False), Refused("it may be damaged")),
    Case("CT series", of_pydicom("98892001/CT5N"), INT32, monai=BACKWARDS, napari=NO_READER),
    Case("radiograph", of_pydicom("77654033/CR1/6154"), Denoised("float32", "not say where it lies"), napari=NO_READER),
    Case("dose", of_pydicom("rtdose.dcm"), FLOAT32, monai=FRAMES, napari=FRAMES),
    Case("dose, big-endian", of_pydicom("rtdose_expb.dcm"), FLOAT32, monai=FRAMES, napari=FRAMES),
    Case("dose, one plane", of_pydicom("rtdose_1frame.dcm"), FLOAT32, monai=FRAMES, napari=FRAMES),
    Case("mosaic", of_nicom("1.dcm"), Refused("is a mosaic of Siemens")),
    Case("DICOM of colours", of_pydicom("SC_rgb_rle.dcm", False), COLOURS),
    Case("palette", of_pydicom("examples_palette.dcm", False), COLOURS),
    Case("ultrasound of 30 frames", of_pydicom("examples_ybr_color.dcm", False), Refused("holds 30 frames")),
    Case("segmentation", of_pydicom("liver_1frame.dcm", False), Refused("one bit per voxel")),
    Case("plan", of_pydicom("rtplan.dcm", False), Refused(r"without an image \(RT Plan Storage\)")),
    Case("lossy JPEG", of_pydicom("JPGExtended.dcm", False), Refused("is compressed as JPEG Extended")),
    Case("deflated", of_pydicom("image_dfl.dcm", False), Refused("is compressed as a whole")),
    Case("without a mark", of_pydicom("no_meta.dcm", False), NO_MARK),
    Case("several series", of_pydicom("98892003", False), Refused("holds 7 series; choose one with --dicom-series")),
    Case("localisers", of_pydicom("98892003/MR700", False), NO_VOLUME),
]

STREAMED = Refused("see nlmeans.denoise_zarr")

ZARR = [
    Case("OME-Zarr", other.zarr(volume("uint16"), "zyx"), UINT16, monai=NO_READER, python=STREAMED),
    Case(
        "OME-Zarr of times",
        other.zarr(other.stack("float32", "TZYX"), "tzyx"),
        FLOAT32,
        monai=NO_READER,
        python=STREAMED,
    ),
]

WALL = [*NIFTI, *OF_NIBABEL, *FREESURFER, *NRRD, *ITK, *TIFF, *NUMPY, *DICOM, *OF_PYDICOM, *ZARR]
