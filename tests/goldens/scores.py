"""Makes scores.json: words, BLEU, ROUGE-L and CIDEr-D as pycocoevalcap has them.

    python3 -m venv /tmp/v && /tmp/v/bin/pip install pycocoevalcap        (it runs Java)
    /tmp/v/bin/python tests/goldens/scores.py Flickr8k.token.txt

The captions of Flickr8k are not in the file, only their scores: the first caption of each image against the other four.
"""

import collections
import json
import pathlib
import random
import sys
import time

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

TEXTS = """
The colour of the theatre is grey, isn't it?
I can't, won't, don't, cannot, gonna, gotta, wanna, lemme, gimme, d'ye, 'tis, 'twas, whaddya
It's the dog's and dogs' toys; they'll say I'm he'd we've y'all o'clock 'em 'n' rock 'n' roll ma'am
a black/white dog (left) [right] {curly} <angle> runs -- fast --- really ... yes.... no.. "quoted" 'single' `back` ``latex''
Mr. Smith and Dr. Jones of the U.S. live in Washington D.C. at 5 p.m. on Jan. 5, 1999.
He costs $5.00 or 1,000,000.50 or 50% or #1 or 3/4 or 1/2 mile, 2nd 10:30 a.m. 1990s '90s 5'10" 6ft +1 -2
AT&T R&B a&b &amp; www.example.com http://example.com/a?b=c me@example.com @user #tag <3
T-shirt well-known twenty-one re-enter x-ray mother-in-law a-b-c two-wheeled black-and-white dog- -dog
Sentence one. Sentence two! Really?! No?? Yes!! end
the dog , cat . and : semi ; dash - star * plus + equal = slash / back \\ pipe | tilde ~ caret ^ under_score percent %
“curly quotes” ‘single’ it’s café naïve – en — em … ellipsis £5 €6 ½ cup 5° São Paulo
word.word a.b.c. e.g. i.e. etc. vs. No. 5 St. Louis jr. inc. co. mt. ave. no. that
dogs.Cats run ,fast ;slow :here !now ?then
d.j. B.B.Q. Ph.D. 4x4 3-D 2-year-old A's 80's 100m 5k 1.5m
ok...then wait..what a....b a...b !!! ??? ,, ;; :: '' "" ' "
2 men's 3 women's boss's children's James' let's who's that's there'll 'll 'd 'm 's
high-fives hi-fi Coca-Cola's Spider-Man ice-cream pick-up truck.
1,2,3 4.5.6 12/25/2012 555-1234
Jumping in mid-air! "Go!" he said. 'Yes,' she said. "5 dogs" '5 dogs'
an and/or his/her 24/7 w/ w/o c/o a/b/c/d
e-mail O'Brien L'Oreal rock'n'roll fo'c'sle ol' goin' 'cause ya'll ain't shan't needn't DIDN'T Let's
tab	separated  double  space 
the dog is running.The cat is not. snow .Two
U.S.A. is U.S. U.K.'s USA's the t.v is on TV. man's.
dog,black-and-white dog,cat Plan a. we go to p. and q. ice cream;the girl"s girl''s it`s
""".strip().split("\n")


def scores(references, captions):
    """Of words with spaces between them, by image."""
    bleu = Bleu(4).compute_score(references, captions, verbose=0)[0]
    rouge, each_rouge = Rouge().compute_score(references, captions)
    cider, each_cider = Cider().compute_score(references, captions)
    return {"bleu": bleu, "rouge_l": rouge, "cider_d": cider}, list(each_rouge), list(each_cider)


def random_set(seed, images, words):
    """Captions that share much with their references, short ones and repeated words among them."""
    numbers = random.Random(seed)
    text = lambda: [f"w{min(numbers.randrange(words), numbers.randrange(words))}" for _ in range(numbers.randrange(1, 14))]
    pairs = []
    for _ in range(images):
        references = [text() for _ in range(numbers.randrange(1, 6))]
        caption = [word if numbers.random() < 0.7 else f"w{numbers.randrange(words)}" for word in numbers.choice(references)]
        pairs.append((" ".join(caption[: numbers.randrange(1, 14)]), [" ".join(reference) for reference in references]))
    captions = {i: [caption] for i, (caption, _) in enumerate(pairs)}
    references = {i: references for i, (_, references) in enumerate(pairs)}
    all_of_them, rouge, cider = scores(references, captions)
    return {"pairs": pairs, "scores": all_of_them, "rouge_l": rouge, "cider_d": cider}


def tokenized(texts):
    return PTBTokenizer().tokenize({i: [{"caption": text} for text in of] for i, of in texts.items()})


def flickr8k(path):
    texts = collections.defaultdict(list)
    for line in open(path, encoding="utf-8"):
        name, caption = line.rstrip("\n").split("\t")
        texts[name.split("#")[0]].append(caption)
    start = time.time()
    captions = tokenized({name: of[:1] for name, of in texts.items()})
    references = tokenized({name: of[1:] for name, of in texts.items()})
    result = scores(references, captions)[0]
    print(f"{len(texts)} images in {time.time() - start:.1f} s")
    return result


golden = {
    "words": [[text, tokenized({0: [text]})[0][0].split()] for text in TEXTS],
    "random": [random_set(1, 40, 12), random_set(2, 7, 60), random_set(3, 120, 300)],
    "flickr8k": flickr8k(sys.argv[1]),
}
path = pathlib.Path(__file__).with_suffix(".json")
path.write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
