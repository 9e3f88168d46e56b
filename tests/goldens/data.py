#!/usr/bin/env python3
"""Makes data.json, bleu.json and images/ beside this file: what Python's libraries give.

    pip install torch torchvision torchmetrics pillow numpy
    python tests/goldens/data.py DIR

DIR holds flickr8k-text (all captions) and flickr8k-mini (some photos); of both only numbers are kept. The
synthetic image is a formula that tests/data_image.rs repeats; of the results a checksum is kept.
"""
import json
import pathlib
import random
import re
import sys

import numpy as np
from PIL import Image
from torchmetrics.functional.text import bleu_score
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

HERE = pathlib.Path(__file__).parent


def synthetic(width, height):
    """Noise on a gradient: sharp edges everywhere, and both ends of the range."""
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    noise = ((x * 73856093) ^ (y * 19349663) ^ (c * 83492791)) >> 5
    value = np.where((x // 9 + y // 7) % 2 == 0, noise, x * 2 + y + c * 40)
    return Image.fromarray((value & 255).astype(np.uint8), "RGB")


def checksum(image):
    """FNV-1a, 64 bits."""
    value = 0xCBF29CE484222325
    for byte in np.asarray(image).tobytes():
        value = (value ^ byte) * 0x100000001B3 & (1 << 64) - 1
    return f"{value:016x}"


def resize(image, width, height):
    """Horizontally, then vertically. One call does the same up to Pillow 12; from 13 on not for tall images."""
    return image.resize((width, image.height), Image.BILINEAR).resize((width, height), Image.BILINEAR)


def resizes():
    cases = [(500, 375, 256, 256), (375, 500, 256, 256), (333, 500, 256, 256), (500, 198, 256, 256),
             (256, 256, 256, 256), (64, 40, 256, 256), (1, 1, 5, 3), (7, 300, 31, 2), (257, 255, 256, 256)]
    return [{"from": [w, h], "to": [a, b], "fnv": checksum(resize(synthetic(w, h), a, b))} for w, h, a, b in cases]


def rotations():
    cases = [(256, 256, d) for d in (-15.0, 15.0, 0.0, 7.3, -0.01, 3.25, -11.875)] + [(37, 22, 9.5), (22, 37, -13.1)]
    cases += [(256, 256, random.uniform(-15, 15)) for _ in range(12)]
    return [{"size": [w, h], "degrees": d,
             "fnv": checksum(F.rotate(synthetic(w, h), d, InterpolationMode.NEAREST))} for w, h, d in cases]


def others():
    image = synthetic(40, 30)
    return {"flip": checksum(F.hflip(image)), "grayscale": checksum(F.to_grayscale(image, 3))}


def files():
    """One small file for each way to store colour, with what convert("RGB") makes of it."""
    folder = HERE / "images"
    folder.mkdir(exist_ok=True)
    y, x = np.mgrid[0:12, 0:17]
    colour = np.stack([x * 15, y * 20, 255 - x * 9 - y * 4], 2).astype(np.uint8)
    rgb = Image.fromarray(colour, "RGB")
    rgba = rgb.copy()
    rgba.putalpha(Image.fromarray((x * 14).astype(np.uint8)))
    palette = rgb.quantize(9)
    rotated = Image.Exif()
    rotated[0x0112] = 6
    made = {
        "rgb.png": (rgb, {}), "rgba.png": (rgba, {}), "gray-alpha.png": (rgba.convert("LA"), {}),
        "palette.png": (palette, {"transparency": 2}), "bits.png": (Image.fromarray((x + y) % 3 == 0), {}),
        "gray.jpg": (rgb.convert("L"), {}), "rgb.jpg": (rgb, {"quality": 95, "subsampling": 0}),
        "progressive.jpg": (rgb, {"progressive": True}), "cmyk.jpg": (rgb.convert("CMYK"), {"quality": 95}),
        "exif-rotated.jpg": (rgb, {"exif": rotated, "quality": 90}),
    }
    result = {}
    for name, (image, options) in made.items():
        image.save(folder / name, **options)
        decoded = np.asarray(Image.open(folder / name).convert("RGB"))
        result[name] = {"size": [decoded.shape[1], decoded.shape[0]], "rgb": decoded.tobytes().hex()}
    return result


def photos(folder):
    """The mean of each channel after decoding and resizing."""
    paths = sorted((folder / "Flicker8k_Dataset").glob("*.jpg"))[::10]
    prepared = {p.name: resize(Image.open(p).convert("RGB"), 256, 256) for p in paths}
    return {name: np.asarray(image).mean((0, 1)).tolist() for name, image in prepared.items()}


def tokenize(text):
    """As torch_reference.py."""
    text = text.lower()
    for pattern, put in ((r"\'", " '  "), (r'"', ""), (r"\.", " . "), (r"<br />", " "), (r",", " , "),
                         (r"\(", " ( "), (r"\)", " ) "), (r"!", " ! "), (r"\?", " ? "), (r"[;:]", " ")):
        text = re.sub(pattern, put, text)
    return text.split()


def tokens():
    parts = ["A", "dog", "'s", "don't", '"', ".", ",", "(", ")", "!", "?", ";", ":", "<br />", "<BR />", "<b\"r />",
             " ", "  ", "\t", "É", "über-", "t-shirt", "3.5", "&", "\u00a0", "\u1680", "\x1f", "...", "İ"]
    texts = ["".join(random.choice(parts) for _ in range(random.randrange(1, 14))) for _ in range(60)] + [""]
    return [{"text": text, "tokens": tokenize(text)} for text in texts]


def scores(pairs):
    hypotheses, references = [h for h, _ in pairs], [r for _, r in pairs]
    corpus = [float(bleu_score(hypotheses, references, n_gram=n)) for n in range(1, 5)]
    means = [sum(float(bleu_score([h], [r], n_gram=n)) for h, r in pairs) / len(pairs) for n in range(1, 5)]
    return {"corpus": corpus, "sentence_mean": means}


def bleu():
    def sentence(low, high):
        return " ".join(random.choice("a dog runs on the green grass . two".split())
                        for _ in range(random.randrange(low, high)))

    corpora = [[(sentence(0, 12), [sentence(0, 14) for _ in range(random.randrange(1, 6))])
                for _ in range(random.choice((1, 1, 4, 30)))] for _ in range(14)]
    corpora += [
        [("", ["a dog"])], [("dog", ["dog"])], [("dog", ["cat", "dog runs"])], [("", [""])], [("", ["a dog"]), ("a dog runs", [""])],
        [("a dog runs on the grass .", ["a dog runs on the grass ."])],
        [("the the the the the the the", ["the cat is on the mat", "there is a cat on the mat"])],
        [("a dog is running", ["a dog runs", "a brown dog is running"])],
        [("a dog is running", ["a brown dog is running", "a dog runs"]), ("it ' s", ["it 's  a dog", "it\tis"])],
    ]
    return [{"pairs": pairs, **scores(pairs)} for pairs in corpora]


def real_bleu(data):
    """The first caption of each image against its other four."""
    captions = {}
    for line in (data / "Flickr8k.token.txt").read_text().splitlines():
        key, text = line.split("\t", 1)
        captions.setdefault(key.rsplit("#", 1)[0], []).append(text.lower())
    lists = {s: (data / f"Flickr_8k.{s}Images.txt").read_text().split() for s in ("dev", "test")}
    return {s: scores([(captions[n][0], captions[n][1:]) for n in names]) for s, names in lists.items()}


def write(path, value):
    """JSON with a line for each entry of the second level."""
    def block(value):
        dump = json.dumps
        if isinstance(value, list):
            return "[\n" + ",\n".join("  " + dump(v) for v in value) + "\n ]"
        if isinstance(value, dict):
            return "{\n" + ",\n".join(f"  {dump(k)}: {dump(v)}" for k, v in value.items()) + "\n }"
        return dump(value)

    path.write_text("{\n" + ",\n".join(f" {json.dumps(k)}: {block(v)}" for k, v in value.items()) + "\n}\n")


def main():
    random.seed(8)
    root = pathlib.Path(sys.argv[1])
    write(HERE / "data.json", {"resize": resizes(), "rotate": rotations(), **others(), "files": files(),
                               "photos": photos(root / "flickr8k-mini"), "tokens": tokens()})
    write(HERE / "bleu.json", {"corpora": bleu(), "real": real_bleu(root / "flickr8k-text")})


if __name__ == "__main__":
    main()
