"""Small PNG, JPEG and DICOM files made in memory, good ones and cunning ones."""

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, generate_uid

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def slice_like(height: int = 90, width: int = 120) -> NDArray[np.uint8]:
    """Draw a bright ellipse with texture on black, uint8 [height, width]."""
    y, x = np.mgrid[:height, :width]
    inside = ((y - height / 2) / (0.4 * height)) ** 2 + ((x - width / 2) / (0.4 * width)) ** 2 < 1
    texture = 150 + 60 * np.sin(x / 5) * np.cos(y / 7)
    return np.where(inside, texture, 0).astype(np.uint8)


def image_file(pixels: NDArray[Any] | Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    """Encode pixels as Pillow does."""
    file = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(file, file_format, **options)
    return file.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """Build one PNG chunk with its length and checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_claiming(width: int, height: int, pixels: bytes = b"", depth: int = 8, colour: int = 0) -> bytes:
    """Build a PNG whose header claims a size that its few bytes of pixels need not have."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(pixels)) + png_chunk(b"IEND", b"")
    return PNG_SIGNATURE + body


def jpeg_claiming(width: int, height: int) -> bytes:
    """Build a JPEG whose frame header claims another size than it has."""
    whole = image_file(slice_like(), "JPEG")
    place = whole.index(b"\xff\xc0") + 5
    return whole[:place] + struct.pack(">HH", height, width) + whole[place + 4 :]


def dicom_file(transfer_syntax: str = ExplicitVRLittleEndian, **elements: Any) -> bytes:
    """Build a CT image object with these elements."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["slice"])
    dataset.file_meta.TransferSyntaxUID = transfer_syntax
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def ct_elements(stored: NDArray[Any], **elements: Any) -> dict[str, Any]:
    """Describe 16-bit stored values [rows, columns] as a CT scanner does: HU = stored - 1024."""
    described = {
        "Rows": stored.shape[0],
        "Columns": stored.shape[1],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": int(np.issubdtype(stored.dtype, np.signedinteger)),
        "RescaleIntercept": "-1024",
        "RescaleSlope": "1",
        "PixelData": stored.tobytes(),
    }
    return {**described, **elements}


def ct_file(hu: NDArray[Any] | None = None, **elements: Any) -> bytes:
    """Build an uncompressed 16-bit CT slice of these Hounsfield units [rows, columns]; without any, of a ramp."""
    shown = np.linspace(-1400, 200, 64 * 48).reshape(48, 64) if hu is None else hu
    return dicom_file(**ct_elements((shown + 1024).astype(np.int16), **elements))


def deflate_bomb(inflated_bytes: int) -> bytes:
    """Build a deflated DICOM file of a thousandth of the size that it inflates to, most of it zeros."""
    start = dicom_file(DeflatedExplicitVRLittleEndian, Rows=64, Columns=64)
    meta_bytes = 132 + 12 + int.from_bytes(start[140:144], "little")
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    header = struct.pack("<HH2sHI", 0x0009, 0x1001, b"OB", 0, inflated_bytes)
    zeros = bytes(1 << 20)
    packed = [packer.compress(header), *(packer.compress(zeros) for _ in range(inflated_bytes >> 20)), packer.flush()]
    return start[:meta_bytes] + b"".join(packed)
