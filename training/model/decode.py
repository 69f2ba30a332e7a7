"""Turn the bytes of a PNG, JPEG or DICOM file into a grey frame, or name what is wrong with them."""

import io
import warnings
import zlib

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from pydicom.dataset import FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset
from pydicom.pixels.utils import pixel_array
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

Frame = NDArray[np.uint8]

MIN_SIDE_PX = 32
MAX_PIXELS = 64_000_000
MAX_INFLATED_BYTES = 16 * 1024 * 1024
"""What a deflated DICOM object may inflate to; a CT slice of 512x512 has half a MiB."""
LUNG_WINDOW_CENTRE_HU = -600.0
LUNG_WINDOW_WIDTH_HU = 1500.0
"""The usual lung window; the same as the PNG files of COVID-CT-MD were made with."""

_DICOM_MAGIC = slice(128, 132)
_JPEG_AND_PNG_MODES = {"L", "RGB", "RGBA", "LA", "P", "1", "CMYK", "YCbCr"}
_SIXTEEN_BIT_MODES = {"I;16", "I;16B", "I;16L", "I"}


class ImageError(ValueError):
    """A file that cannot be read as a slice; the message says why and what to do."""


class NotAnImageError(ImageError):
    """The bytes are neither PNG, JPEG nor DICOM with pixels."""


class TruncatedImageError(ImageError):
    """The file ends early or is damaged inside."""


class ImageTooLargeError(ImageError):
    """More pixels than a CT slice or a viewer's screenshot can have; refused before decoding."""


class ImageTooSmallError(ImageError):
    """Too few pixels to hold a slice."""


def decode_image(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Frame:
    """Return the grey frame uint8 [height, width] that a PNG, JPEG or DICOM file holds.

    DICOM pixels are rescaled to HU and shown in the lung window (centre -600, width 1500 HU; DICOM PS3.3 C.11.2);
    of several frames the first is shown, and a colour object as its grey.
    Raises an `ImageError`, and nothing else, for bytes that are no such file.
    """
    if is_dicom(data):
        return _decode_dicom(data, max_pixels)
    return _decode_raster(data, max_pixels)


def is_dicom(data: bytes) -> bool:
    """Tell whether the bytes carry the DICOM preamble (PS3.10, 7.1)."""
    return data[_DICOM_MAGIC] == b"DICM"


def _decode_raster(data: bytes, max_pixels: int) -> Frame:
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            _check_size(image.width, image.height, max_pixels)
            return _to_grey(image)
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise NotAnImageError(f"{len(data)} bytes are neither PNG, JPEG nor DICOM; give one of these") from None
    except Image.DecompressionBombError:  # raised by Pillow before it tells the sides
        raise ImageTooLargeError(f"the image exceeds {max_pixels:,} pixels; give the slice alone") from None
    except (OSError, SyntaxError, ValueError, IndexError, EOFError, MemoryError) as error:
        raise TruncatedImageError(f"the image is damaged or cut off ({error}); export it again") from error


def _to_grey(image: Image.Image) -> Frame:
    if image.mode in _SIXTEEN_BIT_MODES:
        return (np.clip(np.asarray(image, dtype=np.int64), 0, 65535) // 257).astype(np.uint8)
    if image.mode not in _JPEG_AND_PNG_MODES:
        raise NotAnImageError(f"pixel mode {image.mode} is not grey or colour; save it as 8-bit grey PNG")
    return np.asarray(image.convert("L"), dtype=np.uint8)


def dicom_patient(data: bytes) -> str:
    """Return the PatientID of a DICOM object, or its StudyInstanceUID; empty where there is none or it is damaged."""
    try:
        header = _read_dicom(data)
        return str(header.get("PatientID") or header.get("StudyInstanceUID") or "")
    except Exception:  # noqa: BLE001  pydicom raises nearly any type on a damaged header; decoding will name the fault
        return ""


def _decode_dicom(data: bytes, max_pixels: int) -> Frame:
    try:
        dataset = _read_dicom(data)
        rows, columns = int(dataset.Rows), int(dataset.Columns)
    except ImageError:
        raise
    except (InvalidDicomError, AttributeError) as error:
        raise NotAnImageError(f"the DICOM object holds no image ({error}); send CT image objects only") from None
    except Exception as error:  # pydicom raises nearly any type on a damaged header
        raise TruncatedImageError(f"the DICOM file is damaged ({error}); send it again") from error
    _check_size(columns, rows, max_pixels)
    try:
        pixels = pixel_array(dataset, index=0)
        return _lung_window(dataset, pixels) if dataset.SamplesPerPixel == 1 else _to_grey(Image.fromarray(pixels))
    except Exception as error:  # so do its pixel decoders
        raise TruncatedImageError(f"the DICOM pixels cannot be decoded ({error}); send it uncompressed") from error


def _read_dicom(data: bytes) -> pydicom.Dataset:
    file = io.BytesIO(data)
    file.seek(_DICOM_MAGIC.stop)
    meta = read_dataset(file, is_implicit_VR=False, is_little_endian=True, stop_when=lambda tag, *_: tag.group != 2)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return pydicom.dcmread(io.BytesIO(data))
    return _inflated(file.read(), meta)


def _inflated(deflated: bytes, meta: pydicom.Dataset) -> pydicom.Dataset:
    """Do what dcmread does with a deflated object (PS3.5 A.5), but with an end: it would inflate a bomb as well."""
    inflating = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = inflating.decompress(deflated, MAX_INFLATED_BYTES)
    if inflating.unconsumed_tail:
        raise ImageTooLargeError(
            f"the DICOM object inflates to over {MAX_INFLATED_BYTES:,} bytes; send it uncompressed"
        )
    dataset = read_dataset(io.BytesIO(inflated), is_implicit_VR=False, is_little_endian=True)
    dataset.file_meta = FileMetaDataset(meta)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


def _lung_window(dataset: pydicom.Dataset, stored: NDArray[np.generic]) -> Frame:
    hu = stored.astype(np.float32) * float(dataset.get("RescaleSlope") or 1) + float(
        dataset.get("RescaleIntercept") or 0
    )
    low = LUNG_WINDOW_CENTRE_HU - LUNG_WINDOW_WIDTH_HU / 2
    shown = np.clip((hu - low) / LUNG_WINDOW_WIDTH_HU, 0, 1)
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        shown = 1 - shown
    return np.asarray(np.round(shown * 255), dtype=np.uint8)


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if min(width, height) < MIN_SIDE_PX:
        raise ImageTooSmallError(f"{width}x{height} px is no slice; at least {MIN_SIDE_PX}x{MIN_SIDE_PX} are needed")
    if width * height > max_pixels:
        raise ImageTooLargeError(f"{width}x{height} px exceed {max_pixels:,} pixels; give the slice alone")
