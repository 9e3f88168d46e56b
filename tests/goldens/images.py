#!/usr/bin/env python3
"""Makes images.safetensors beside this file: image files of many layouts, and the pixels that Pillow reads from them.

    pip install pillow numpy
    python tests/goldens/images.py

Pillow writes only the usual layouts of JPEG, so the encoder here writes the others: any sampling factors, one scan or
several, with and without restart markers, progressive (without refinement). It uses the standard's Huffman tables
(ITU-T T.81, annex K). The tensors are bytes. `<picture>/<layout>` is a file, and `<picture>` holds the pixels of all its
files, because scans and restarts do not change a picture. From JPEG files the Huffman tables are left out: `tables`
belongs after the first two bytes.
"""
import io
import json
import pathlib
import struct

import numpy as np
from PIL import Image

HERE = pathlib.Path(__file__).parent
# Width, height, and the MCUs between restart markers.
SIZES = [(36, 21, 0), (41, 9, 2)]
# The sampling factors of Y, Cb and Cr, horizontal and vertical.
SAMPLINGS = {
    "444": ["11", "11", "11"], "422": ["21", "11", "11"], "420": ["22", "11", "11"], "440": ["12", "11", "11"],
    "411": ["41", "11", "11"], "410": ["42", "11", "11"], "441": ["14", "11", "11"], "444-as-22": ["22", "22", "22"],
    "422-as-22": ["22", "12", "12"], "440-as-22": ["22", "21", "21"], "mixed": ["22", "21", "11"], "mixed-cr": ["21", "11", "21"],
    "luma-coarser": ["11", "22", "22"], "luma-coarser-h": ["11", "21", "21"], "luma-coarser-v": ["11", "12", "12"],
    "gray": ["11"], "gray-as-22": ["22"], "thirds": ["31", "11", "11"], "cmyk": ["11", "11", "11", "11"],
    "cmyk-420": ["22", "11", "11", "22"],
}
ZIGZAG = sorted(range(64), key=lambda i: (i // 8 + i % 8, i % 8 if (i // 8 + i % 8) % 2 == 0 else i // 8))
DC = ([0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0], list(range(12)))
AC = ([0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 0x7D], bytes.fromhex(
    "01020300041105122131410613516107227114328191a1082342b1c11552d1f02433627282090a161718191a25262728292a3435363738393a"
    "434445464748494a535455565758595a636465666768696a737475767778797a838485868788898a92939495969798999aa2a3a4a5a6a7a8a9"
    "aab2b3b4b5b6b7b8b9bac2c3c4c5c6c7c8c9cad2d3d4d5d6d7d8d9dae1e2e3e4e5e6e7e8e9eaf1f2f3f4f5f6f7f8f9fa"))
QUANTISER = [6, 9]


def codes(table):
    counts, values = table
    code, found, next_value = 0, {}, iter(values)
    for length, count in enumerate(counts, 1):
        for _ in range(count):
            found[next(next_value)] = f"{code:0{length}b}"
            code += 1
        code <<= 1
    return found


DC_CODES, AC_CODES = codes(DC), codes(AC)


def cosines():
    k, n = np.meshgrid(np.arange(8), np.arange(8), indexing="ij")
    return np.where(k == 0, np.sqrt(1 / 8), 0.5) * np.cos((2 * n + 1) * k * np.pi / 16)


class Component:
    """The quantised blocks of one plane, padded to whole MCUs."""

    def __init__(self, plane, h, v, most_h, most_v, quantiser):
        self.h, self.v = h, v
        height, width = plane.shape
        mcus_x, mcus_y = -(-width // (8 * most_h)), -(-height // (8 * most_v))
        # Blocks that a scan of this component alone holds.
        self.alone = (-(-width * h // (8 * most_h)), -(-height * v // (8 * most_v)))
        # Black beyond the edge: a decoder must not let it shine through.
        padded = np.pad(plane, ((0, mcus_y * 8 * most_v - height), (0, mcus_x * 8 * most_h - width)))
        # The samples are the mean of the pixels below them: exact where the factors divide each other.
        rows, columns = mcus_y * 8 * v, mcus_x * 8 * h
        fine = np.repeat(np.repeat(padded, v, 0), h, 1)
        small = fine.reshape(rows, most_v, columns, most_h).mean((1, 3)) - 128
        blocks = small.reshape(mcus_y * v, 8, mcus_x * h, 8).transpose(0, 2, 1, 3)
        basis = cosines()
        scaled = basis @ blocks @ basis.T / quantiser
        self.blocks = np.rint(scaled).astype(int).reshape(mcus_y * v, mcus_x * h, 64)[:, :, ZIGZAG]


def magnitude(value):
    size = abs(value).bit_length()
    return size, f"{value if value > 0 else value + (1 << size) - 1:0{size}b}" if size else ""


def block_bits(block, last):
    size, bits = magnitude(int(block[0]) - last)
    text = DC_CODES[size] + bits
    run = 0
    for value in block[1:]:
        if value == 0:
            run += 1
            continue
        while run > 15:
            text += AC_CODES[0xF0]
            run -= 16
        size, bits = magnitude(int(value))
        text += AC_CODES[run << 4 | size] + bits
        run = 0
    return text + AC_CODES[0] if run else text


def units(components):
    """The MCUs of a scan: lists of (index of the component, block)."""
    if len(components) == 1:
        [(i, c)] = components
        width, height = c.alone
        return [[(i, c.blocks[y, x])] for y in range(height) for x in range(width)]
    first = components[0][1]
    mcus_y, mcus_x = first.blocks.shape[0] // first.v, first.blocks.shape[1] // first.h
    return [[(i, c.blocks[y * c.v + v, x * c.h + h]) for i, c in components for v in range(c.v) for h in range(c.h)]
            for y in range(mcus_y) for x in range(mcus_x)]


def flush(text):
    text += "1" * (-len(text) % 8)
    return bytes(int(text[i:i + 8], 2) for i in range(0, len(text), 8)).replace(b"\xff", b"\xff\0")


def segment(marker, content):
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def tables():
    return b"".join(segment(0xC4, bytes([kind] + counts) + bytes(values)) for kind, (counts, values) in ((0, DC), (0x10, AC)))


def entropy(units, restart, bits):
    text, last, body = "", {}, b""
    for n, unit in enumerate(units):
        if restart and n and n % restart == 0:
            body += flush(text) + bytes([0xFF, 0xD0 + (n // restart - 1) % 8])
            text, last = "", {}
        for i, block in unit:
            text += bits(block, last.get(i, 0))
            last[i] = int(block[0])
    return body + flush(text)


def dc_bits(block, last):
    return block_bits(block[:1], last)


def ac_bits(block, _):
    """What follows the mean in a block."""
    return block_bits(np.concatenate([[0], block[1:]]), 0).removeprefix(DC_CODES[0])


def encode(planes, sampling, scans, restart, ids=(1, 2, 3, 4), extra=b""):
    """A JPEG file without its Huffman tables. `scans` lists the components of each scan; none stands for progressive."""
    height, width, count = planes.shape
    factors = [(int(f[0]), int(f[1])) for f in sampling]
    most_h, most_v = max(h for h, _ in factors), max(v for _, v in factors)
    every = [(i, Component(planes[:, :, i], h, v, most_h, most_v, QUANTISER[i > 0])) for i, (h, v) in enumerate(factors)]
    out = b"\xff\xd8" + extra + b"".join(segment(0xDB, bytes([i] + [q] * 64)) for i, q in enumerate(QUANTISER))
    listed = b"".join(bytes([ids[i], h << 4 | v, i > 0]) for i, (h, v) in enumerate(factors))
    out += segment(0xC0 if scans else 0xC2, struct.pack(">BHHB", 8, height, width, len(factors)) + listed)
    if restart:
        out += segment(0xDD, struct.pack(">H", restart))
    alone = [[i] for i in range(len(factors))]
    together = [sum(alone, [])] if sum(h * v for h, v in factors) <= 10 else alone
    parts = [(scan, 0, 63, block_bits) for scan in scans] or \
        [(scan, 0, 0, dc_bits) for scan in together] + [(scan, 1, 63, ac_bits) for scan in alone]
    for scan, start, end, bits in parts:
        out += segment(0xDA, bytes([len(scan)] + [b for i in scan for b in (ids[i], 0)] + [start, end, 0]))
        out += entropy(units([every[i] for i in scan]), restart, bits)
    return out + b"\xff\xd9"


def picture(width, height):
    """Smooth colours with a few edges: every block has coefficients, and chroma differs from column to column."""
    y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    red = 128 + 100 * np.sin(x / 5 + y / 9)
    green = 128 + 100 * np.cos(y / 4 - x / 11)
    blue = np.where((x // 11 + y // 9) % 2 == 0, 210, 60) + 20 * np.sin(x / 3)
    return np.stack([red, green, blue], -1).clip(0, 255).astype(np.uint8)


def planes(pixels, count):
    """What a JPEG file stores of a picture: gray, YCbCr, or YCbCr and black."""
    ycbcr = np.asarray(Image.fromarray(pixels).convert("YCbCr"), dtype=float)
    return np.concatenate([ycbcr, 255 - ycbcr[:, :, :1] / 3], 2)[:, :, :count]


def read(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


ARRANGEMENTS = {
    "one": [[0, 1, 2]], "each": [[0], [1], [2]], "y-cbcr": [[0], [1, 2]], "ycb-cr": [[0, 1], [2]],
    "chroma-first": [[1], [2], [0]], "progressive": [],
}
ADOBE, JFIF = b"Adobe\0\x64\0\0\0\0", segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")


def jpegs():
    """The picture, the layout and the file of every layout of JPEG."""
    for name, sampling in SAMPLINGS.items():
        count = len(sampling)
        arrangements = ARRANGEMENTS if count == 3 else {"one": [list(range(count))], "progressive": []}
        for width, height, restart in SIZES:
            stored = planes(picture(width, height), count)
            for arrangement, scans in arrangements.items():
                if scans and any(len(scan) > 1 and sum(int(sampling[i][0]) * int(sampling[i][1]) for i in scan) > 10 for scan in scans):
                    continue
                yield f"jpeg-{name}-{width}x{height}", arrangement, encode(stored, sampling, scans, restart)
    # Who says what the components mean: their names, a JFIF segment, an Adobe segment.
    stored = planes(picture(33, 21), 4)
    for ids in ((1, 2, 3), (0, 1, 2), (82, 71, 66)):
        for says, extra in {"nothing": b"", "jfif": JFIF, "adobe0": segment(0xEE, ADOBE + b"\0"),
                            "adobe1": segment(0xEE, ADOBE + b"\1"), "both": JFIF + segment(0xEE, ADOBE + b"\0")}.items():
            yield f"jpeg-ids-{ids[0]}-{says}", "one", encode(stored[:, :, :3], SAMPLINGS["420"], [[0, 1, 2]], 0, ids, extra)
    for transform in (0, 2):
        extra = segment(0xEE, ADOBE + bytes([transform]))
        for name in ("cmyk", "cmyk-420"):
            yield f"jpeg-{name}-adobe{transform}", "one", encode(stored, SAMPLINGS[name], [[0, 1, 2, 3]], 0, extra=extra)


def others():
    """The picture and the file in other formats."""
    image = Image.fromarray(picture(33, 21))
    alpha = image.convert("RGBA")
    alpha.putalpha(Image.fromarray((np.indices((21, 33)).sum(0) * 4).astype(np.uint8)))
    few = image.quantize(16)
    for name, (kind, options) in {
        "webp": (image, {"quality": 60}), "webp-lossless": (image, {"lossless": True}),
        "webp-alpha": (alpha, {"lossless": True, "exact": True}), "gif": (few, {}), "gif-transparent": (few, {"transparency": 3}),
        "gif-animated": (few, {"save_all": True, "append_images": [few.transpose(0)]}),
        "bmp": (image, {}), "bmp-palette": (few, {}), "bmp-alpha": (alpha, {}),
    }.items():
        file = io.BytesIO()
        kind.save(file, name.split("-")[0], **options)
        yield name, file.getvalue()


def write(path, tensors):
    header, data = {}, b""
    for name, (shape, content) in tensors.items():
        header[name] = {"dtype": "U8", "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def main():
    table = tables()
    tensors, pictures = {"tables": ([len(table)], table)}, {}
    for name, layout, data in jpegs():
        tensors[f"{name}/{layout}"] = [len(data)], data
        pixels = read(data[:2] + table + data[2:])
        assert np.array_equal(pixels, pictures.setdefault(name, pixels)), f"{name}/{layout}"
    for name, data in others():
        tensors[f"{name}/file"] = [len(data)], data
        pictures[name] = read(data)
    tensors |= {name: (list(pixels.shape), pixels.tobytes()) for name, pixels in pictures.items()}
    write(HERE / "images.safetensors", tensors)


if __name__ == "__main__":
    main()
