#!/usr/bin/env python3
"""Makes tables.json beside this file: tables of captions, and the rows that Python's csv module reads in them.

    python tests/goldens/tables.py
"""
import csv
import io
import json
import pathlib
import random

random.seed(8)
PIECES = ["A", "dog", "runs", " ", " ", ".", '"', '""', ",", ";", "|", "\t", "'", "\n", "#1", "caf\u00e9", "\u72d7", "0"]
NAMES = ["a.jpg", "b c.PNG", "photos/d.jpeg", "e,f.jpg", "g#1.jpg", "\u00f1.jpg"]


def caption():
    """Begins with a letter: what is not in quotes may lose spaces in front."""
    return "X" + "".join(random.choice(PIECES) for _ in range(random.randrange(9)))


def table():
    separator = random.choice(",,,;|\t")
    end = random.choice(["\n", "\r\n"])
    quoting = random.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
    form = random.choice(["plain", "numbered", "index", "wide"])
    headers = {"plain": ["image", "caption"], "numbered": ["image_name", "comment_number", "comment"],
               "index": ["", "image", "caption"], "wide": ["split", "caption", "url", "filename"]}
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=separator, quoting=quoting, lineterminator=end)
    # Of the first row without a header, the separator has to be told from the name.
    has_header = form == "wide" or random.random() < 0.6
    if has_header:
        writer.writerow(headers[form])
    for i in range(random.randrange(1, 7)):
        name = "a.jpg" if i == 0 and not has_header else random.choice(NAMES)
        row = {"image": name, "caption": caption(), "index": i}
        fields = {"plain": ["image", "caption"], "numbered": ["image", "index", "caption"],
                  "index": ["index", "image", "caption"], "wide": ["train", "caption", "https://x/?a=1&b=2", "image"]}
        writer.writerow([row.get(field, field) for field in fields[form]])
    text = random.choice(["", "\ufeff"]) + text.getvalue()
    rows = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), delimiter=separator, skipinitialspace=True)
    rows = list(rows)[has_header:]
    image, words = {"plain": (0, 1), "numbered": (0, 2), "index": (1, 2), "wide": (3, 1)}[form]
    return {"text": text, "rows": [[row[image], row[words]] for row in rows]}


out = pathlib.Path(__file__).parent / "tables.json"
tables = [table() for _ in range(120)]
out.write_text("[\n" + ",\n".join(json.dumps(t, ensure_ascii=False) for t in tables) + "\n]\n")
