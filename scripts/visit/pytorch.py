"""What PyTorch takes for the same work on the same card: `pytorch.py OUT` writes OUT/pytorch-times.json.

The two decoders as modules (nn.LSTM, which is cuDNN's, and nn.LSTMCell; attention's projection hoisted), fused SGD and Adam,
eager and captured as a CUDA graph; products by cuBLAS, convolutions by cuDNN in channels-last. Times are medians in
microseconds between CUDA events; products and convolutions run on tensors that no cache holds.
"""

import json
import statistics
import sys

try:
    import torch
    from torch import nn
    from torch.nn import functional
except ImportError:
    print("skipped: there is no PyTorch here")
    sys.exit(77)

if not torch.cuda.is_available():
    print("skipped: PyTorch finds no GPU")
    sys.exit(77)

torch.backends.cuda.matmul.allow_tf32 = True
torch.backends.cudnn.allow_tf32 = True
torch.backends.cudnn.benchmark = True
COLD = 256 << 20
times = {}


def median(run, count=20):
    """The median time of `run` in microseconds."""
    for _ in range(3):
        run()
    events = []
    for _ in range(count):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        events.append((start, end))
    torch.cuda.synchronize()
    return statistics.median(1000 * start.elapsed_time(end) for start, end in events)


def graphed(run):
    """`run` as a CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def cold(make, run):
    """The time of `run` on each of so many sets of tensors that no cache holds them, in one graph."""
    first = make()
    size = sum(t.numel() * t.element_size() for t in first)
    sets = [first] + [make() for _ in range(min(255, max(1, COLD // size)))]

    def all_of_them():
        for one in sets:
            run(*one)

    return median(graphed(all_of_them)) / len(sets)


class ShowTell(nn.Module):
    """B=128, T=24, V=7,702."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7702, 256)
        self.project = nn.Linear(2048, 256)
        self.lstm = nn.LSTM(256, 256, 2, dropout=0.3)
        self.output = nn.Linear(256, 7702)

    def forward(self, features, words):
        inputs = torch.cat([self.project(features)[None], self.embedding(words[:-1])])
        return functional.cross_entropy(self.output(self.lstm(inputs)[0]).flatten(0, 1), words.flatten(), ignore_index=0)


class Attend(nn.Module):
    """B=32, T=24, P=196, V=8,915."""

    def __init__(self):
        super().__init__()
        self.keys, self.query, self.score = nn.Linear(2048, 256), nn.Linear(512, 256), nn.Linear(256, 1)
        self.embedding = nn.Embedding(8915, 512)
        self.cell = nn.LSTMCell(512 + 2048, 512)
        self.hidden, self.state = nn.Linear(2048, 512), nn.Linear(2048, 512)
        self.gate, self.output = nn.Linear(512, 2048), nn.Linear(512, 8915)

    def forward(self, features, words):
        mean = features.mean(1)
        h, c = self.hidden(mean), self.state(mean)
        keys, embedded, hs, alphas = self.keys(features), self.embedding(words), [], []
        for step in range(words.shape[0] - 1):
            scores = self.score(torch.relu(keys + self.query(h)[:, None]))[..., 0]
            alpha = torch.softmax(scores, 1)
            context = torch.sigmoid(self.gate(h)) * torch.einsum("bp,bpd->bd", alpha, features)
            h, c = self.cell(torch.cat([embedded[step], context], 1), (h, c))
            hs.append(h)
            alphas.append(alpha)
        logits = self.output(functional.dropout(torch.stack(hs), 0.5))
        loss = functional.cross_entropy(logits.flatten(0, 1), words[1:].flatten(), ignore_index=0)
        return loss + ((1 - torch.stack(alphas).sum(0)) ** 2).mean()


def step(name, model, features, words, optimiser, clip):
    model, features, words = model.cuda().train(), features.cuda(), words.cuda()
    optimiser = optimiser(model.parameters())
    for precision in ("tf32", "bf16"):

        def run():
            optimiser.zero_grad(set_to_none=False)
            with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16", cache_enabled=False):
                loss = model(features, words)
            loss.backward()
            clip(model.parameters())
            optimiser.step()

        run()
        times[f"{precision} training step/{name} eager"] = median(run, 10)
        times[f"{precision} training step/{name}"] = median(graphed(run))


def steps():
    norm = lambda parameters: nn.utils.clip_grad_norm_(parameters, 0.25, foreach=True)
    value = lambda parameters: nn.utils.clip_grad_value_(parameters, 5.0, foreach=True)
    sgd = lambda parameters: torch.optim.SGD(parameters, lr=0.9, momentum=0.9, fused=True)
    adam = lambda parameters: torch.optim.Adam(parameters, lr=4e-4, fused=True, capturable=True)
    words = torch.randint(1, 7702, (24, 128))
    step("show-tell B=128 T=24 V=7702", ShowTell(), torch.rand(128, 2048), words, sgd, norm)
    words = torch.randint(1, 8915, (25, 32))
    step("attend B=32 T=24 P=196 V=8915", Attend(), torch.rand(32, 196, 2048), words, adam, value)


def products():
    for m, k, n in [(768, 512, 8915), (2048, 2048, 256), (32, 512, 2048), (3072, 256, 7702)]:
        for precision, dtype in [("tf32", torch.float32), ("bf16", torch.bfloat16)]:
            make = lambda: (torch.rand(m, k, device="cuda", dtype=dtype), torch.rand(n, k, device="cuda", dtype=dtype))
            times[f"{precision} gemm/product/{m}x{k}x{n}"] = cold(make, lambda a, b: a @ b.T)


def convolutions():
    layers = [
        ("stem", 7, 2, 256, 3, 64), ("1_first", 1, 1, 64, 64, 64), ("1_reduce", 1, 1, 64, 256, 64),
        ("1_3x3", 3, 1, 64, 64, 64), ("1_expand", 1, 1, 64, 64, 256), ("2_3x3", 3, 1, 32, 128, 128),
        ("3_3x3", 3, 1, 16, 256, 256), ("4_3x3", 3, 1, 8, 512, 512), ("4_expand", 1, 1, 8, 512, 2048),
    ]
    for name, kernel, stride, size, channels, filters in layers:

        def make():
            x = torch.rand(8, channels, size, size, device="cuda").contiguous(memory_format=torch.channels_last)
            w = torch.rand(filters, channels, kernel, kernel, device="cuda").contiguous(memory_format=torch.channels_last)
            return x, w

        run = lambda x, w: functional.conv2d(x, w, stride=stride, padding=kernel // 2)
        times[f"tf32 conv_forward/{name}"] = cold(make, run)


def sequence():
    lstm = nn.LSTM(256, 256, 2).cuda()
    x = torch.rand(24, 128, 256, device="cuda", requires_grad=True)
    times["tf32 lstm/sequence forward T=24 B=128 H=256 L=2"] = median(lambda: lstm(x))
    both = lambda: lstm(x)[0].sum().backward()
    times["tf32 lstm/sequence forward and backward T=24 B=128 H=256 L=2"] = median(both)


for part in (steps, products, convolutions, sequence):
    try:
        part()
    except Exception as error:  # one part that fails leaves the others
        print(f"{part.__name__}: {error!r}")
    json.dump(times, open(f"{sys.argv[1]}/pytorch-times.json", "w"), indent=1)
for name, time in times.items():
    print(f"{time:10.1f} µs  {name}")
