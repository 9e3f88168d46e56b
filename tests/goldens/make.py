#!/usr/bin/env python3
"""Makes the numbers that tests compare the engine with: both captioners, small, run by PyTorch.

    pip install torch safetensors numpy
    python tests/goldens/make.py

Writes beside itself:

  batch64.safetensors, batch96.safetensors
      images      u8  (N, S, S, 3)   pixels, S = 64 or 96
      normalised  f32 (N, 3, S, S)   what the encoder reads (64 only)
      tokens      u32 (N, T)         <sos> words <eos>, padded with 0
  show_tell.init.safetensors, attend.init.safetensors
      every parameter and buffer before the first step, f32, PyTorch's shapes and names
  <model>.<encoder>.<batch norm>[.96].safetensors, one per case, all f32
      features      the encoder's output for the batch with running statistics before the first step:
                    show-tell (N, E); attend (N, D, n, n), the map before adaptive pooling
      logits        of the first training forward pass, (N, T', V)
      grad.<name>   of every trainable at the first step, before clipping
      final.<name>  every trainable and every changed buffer after the last step
  the same with .json
      case      the settings
      trace     per step: loss (with regulariser), ce, grad_norm (before clipping)
      captions  greedy token ids at the end, without <sos> and <eos>, at most `limit` words
      margin    the smallest gap between the best and the second-best logit of those captions
      noise     per tensor of the file and for `loss`, `ce`, `grad_norm`: the largest absolute difference
                between PyTorch's own float32 run and these numbers
  ops.safetensors
      inputs, outputs and gradients of single operations, f64, PyTorch's layouts: <case>.<tensor>

The runs are in float64 from initial values exact in float32, and stored rounded to float32: what is
compared with them differs by its own rounding alone. `noise` says how far a float32 run may lie off.

<encoder> is `frozen` or `tuned` (stages 2-4 with their batch-norm train), <batch norm> is `running`
(inference mode) or `batch` (batch statistics, running ones updated). Dropout is 0. Recipes:
show-tell: SGD lr 0.9, momentum 0.9, weight decay 1e-6; tuned encoder lr 1e-4 without decay; global norm
clipped to 0.25. attend: Adam lr 4e-4, weight decay 1e-5; tuned encoder lr 1e-4 without decay; values clamped
to 5. The encoder is a ResNet of bottlenecks, blocks 1-2-1-1, first width 4, so D = 128.
"""
import copy, json, pathlib
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

HERE = pathlib.Path(__file__).parent
PAD, SOS, UNK, EOS = range(4)
VOCABULARY, STEPS, LIMIT, POOL, SEED = 41, 10, 12, 14, 9
# Cross-entropy at which the initial state is taken: low enough for captions that differ from image to
# image, high enough for gradients that stand well above f32 rounding.
WARM = {"show_tell": 0.4, "attend": 1.0}
BLOCKS, WIDTH, D = (1, 2, 1, 1), 4, 128
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Bottleneck(nn.Module):
    """1x1, 3x3 (which carries the stride), 1x1 to four times the width; added to the input."""

    def __init__(self, inputs, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = None
        if stride != 1 or inputs != 4 * width:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class Encoder(nn.Module):
    """A ResNet under torchvision's names, up to the last map."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTH, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTH)
        inputs = WIDTH
        for stage, blocks in enumerate(BLOCKS):
            width, made = WIDTH << stage, []
            for block in range(blocks):
                made.append(Bottleneck(inputs, width, 2 if stage > 0 and block == 0 else 1))
                inputs = 4 * width
            self.add_module(f"layer{stage + 1}", nn.Sequential(*made))
        for conv in self.modules():
            if isinstance(conv, nn.Conv2d):
                nn.init.kaiming_normal_(conv.weight, mode="fan_out")
            if isinstance(conv, nn.BatchNorm2d):  # not 1 and 0, so that a gain left out is noticed
                nn.init.uniform_(conv.weight, 0.5, 1.5)
                nn.init.uniform_(conv.bias, -0.2, 0.2)

    def stages(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, padding=1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    def set_trained(self, tuned):
        self.requires_grad_(False)
        if tuned:
            for stage in (self.layer2, self.layer3, self.layer4):
                stage.requires_grad_(True)


class ShowTell(nn.Module):
    """The image is the first input of an LSTM, the caption without its last word the rest."""

    E, H, LAYERS = 12, 16, 2

    def __init__(self):
        super().__init__()
        self.encoder = Encoder()
        self.encoder.fc = nn.Linear(D, self.E)
        nn.init.uniform_(self.encoder.fc.weight, -0.01, 0.01)  # else the gates saturate
        self.embedding = nn.Embedding(VOCABULARY, self.E, padding_idx=PAD)
        self.lstm = nn.LSTM(self.E, self.H, self.LAYERS, batch_first=True)
        self.output = nn.Linear(self.H, VOCABULARY)

    def set_trained(self, tuned):
        self.encoder.set_trained(tuned)
        self.encoder.fc.requires_grad_(True)

    def features(self, images):
        return self.encoder.fc(self.encoder.stages(images).mean((2, 3)))

    def logits(self, images, tokens):
        inputs = torch.cat([self.features(images)[:, None], self.embedding(tokens)], 1)
        return self.output(self.lstm(inputs)[0])

    def loss(self, images, tokens):
        logits = self.logits(images, tokens[:, :-1])
        ce = F.cross_entropy(logits.flatten(0, 1), tokens.flatten(), ignore_index=PAD)
        return ce, ce, logits

    def optimiser(self, encoder, decoder):
        groups = [dict(params=decoder, lr=0.9, weight_decay=1e-6), dict(params=encoder, lr=1e-4)]
        return torch.optim.SGD([g for g in groups if g["params"]], momentum=0.9)

    def clip(self, parameters):
        nn.utils.clip_grad_norm_(parameters, 0.25)

    def greedy(self, image):
        """The first word is <sos> when all is well; it is generated, not given, and not returned."""
        words, margin = [], float("inf")
        while len(words) <= LIMIT:
            tokens = torch.tensor([words], dtype=torch.long).view(1, -1)
            word, gap = best(self.logits(image[None], tokens)[0, -1])
            margin = min(margin, gap)
            if word == EOS:
                break
            words.append(word)
        return (words[1:] if words[:1] == [SOS] else words), margin


class Attend(nn.Module):
    """Each word looks at the image anew, by additive attention."""

    A, E, H = 10, 12, 14

    def __init__(self):
        super().__init__()
        self.encoder = Encoder()
        self.encoder_att = nn.Linear(D, self.A)
        self.decoder_att = nn.Linear(self.H, self.A)
        self.full_att = nn.Linear(self.A, 1)
        self.embedding = nn.Embedding(VOCABULARY, self.E, padding_idx=PAD)
        self.decode_step = nn.LSTMCell(self.E + D, self.H)
        self.init_h = nn.Linear(D, self.H)
        self.init_c = nn.Linear(D, self.H)
        self.f_beta = nn.Linear(self.H, D)
        self.output = nn.Linear(self.H, VOCABULARY)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        nn.init.uniform_(self.output.weight, -0.1, 0.1)
        nn.init.zeros_(self.output.bias)

    def set_trained(self, tuned):
        self.encoder.set_trained(tuned)

    def features(self, images):
        return self.encoder.stages(images)

    def positions(self, images):
        """(N, P, D), and the first state of the cell."""
        pooled = F.adaptive_avg_pool2d(self.features(images), POOL).flatten(2).transpose(1, 2)
        mean = pooled.mean(1)
        return pooled, (self.init_h(mean), self.init_c(mean))

    def step(self, positions, token, state):
        scores = F.relu(self.encoder_att(positions) + self.decoder_att(state[0])[:, None])
        alpha = self.full_att(scores)[..., 0].softmax(1)
        context = torch.einsum("np,npd->nd", alpha, positions) * self.f_beta(state[0]).sigmoid()
        state = self.decode_step(torch.cat([self.embedding(token), context], 1), state)
        return self.output(state[0]), alpha, state

    def loss(self, images, tokens):
        positions, state = self.positions(images)
        logits, attended = [], 0
        for token in tokens[:, :-1].T:
            scores, alpha, state = self.step(positions, token, state)
            logits.append(scores)
            attended = attended + alpha
        logits = torch.stack(logits, 1)
        ce = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), ignore_index=PAD)
        return ce + ((1 - attended) ** 2).mean(), ce, logits

    def optimiser(self, encoder, decoder):
        groups = [dict(params=decoder, lr=4e-4, weight_decay=1e-5), dict(params=encoder, lr=1e-4)]
        return torch.optim.Adam([g for g in groups if g["params"]])

    def clip(self, parameters):
        nn.utils.clip_grad_value_(parameters, 5.0)

    def greedy(self, image):
        positions, state = self.positions(image[None])
        words, margin, word = [], float("inf"), SOS
        while len(words) < LIMIT:
            scores, _, state = self.step(positions, torch.tensor([word]), state)
            word, gap = best(scores[0])
            margin = min(margin, gap)
            if word == EOS:
                break
            words.append(word)
        return words, margin


def best(logits):
    """The best word and its lead over the second-best."""
    top = logits.topk(2)
    return int(top.indices[0]), float(top.values[0] - top.values[1])


def make_batch(size, lengths):
    """Coloured patches with noise, all different, and captions of the given lengths in words."""
    generator = torch.Generator().manual_seed(SEED + size)
    coarse = torch.rand(len(lengths), 3, 5, 5, generator=generator)
    images = F.interpolate(coarse, size, mode="bilinear") * 215
    images = (images + 40 * torch.rand(images.shape, generator=generator)).round().to(torch.uint8)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    normalised = (images / 255 - mean) / std
    captions = [torch.randint(4, VOCABULARY, (n,), generator=generator) for n in lengths]
    captions[0][1] = UNK
    captions = [torch.cat([torch.tensor([SOS]), c, torch.tensor([EOS])]) for c in captions]
    tokens = nn.utils.rnn.pad_sequence(captions, batch_first=True, padding_value=PAD)
    batch = {"images": images.permute(0, 2, 3, 1), "tokens": tokens.to(torch.uint32)}
    if size == 64:
        batch["normalised"] = normalised
    save(batch, f"batch{size}")
    return normalised, tokens


def prepare(model, warm, images, tokens):
    """An initial state in which nothing is trivial.

    Running statistics roughly as on this batch: in a random deep network others let activations explode,
    and with exactly these inference mode and batch statistics would agree. Then the decoder learns a
    little, so that attention is not uniform and captions are not empty.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
    with torch.no_grad():
        model.train()
        model.features(images)
        for norm in norms:
            norm.momentum = 0.1
            norm.running_mean += 0.2 * norm.running_var.sqrt() * torch.randn_like(norm.running_mean)
            norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.7, 1.4)
    model.eval()
    model.set_trained(False)
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.01)
    ce = torch.tensor(float("inf"))
    while ce > warm:
        loss, ce, _ = model.loss(images, tokens)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def run(model, images, tokens, tuned, batch_norm):
    """Ten steps on one batch: tensors, trace, captions, smallest margin."""
    tensors, trace = {}, []
    model.set_trained(tuned)
    model.eval()
    with torch.no_grad():
        tensors["features"] = model.features(images)
    model.train()
    if batch_norm == "running":
        model.encoder.eval()
    trained = {k: v for k, v in model.named_parameters() if v.requires_grad}
    is_encoder = lambda name: name.startswith("encoder.layer")
    optimiser = model.optimiser([v for k, v in trained.items() if is_encoder(k)],
                                [v for k, v in trained.items() if not is_encoder(k)])
    for step in range(STEPS):
        loss, ce, logits = model.loss(images, tokens)
        optimiser.zero_grad()
        loss.backward()
        norm = torch.stack([v.grad.norm() for v in trained.values()]).norm()
        if step == 0:
            tensors["logits"] = logits.detach()
            tensors |= {f"grad.{k}": v.grad.clone() for k, v in trained.items()}
        model.clip(trained.values())
        optimiser.step()
        trace.append(dict(loss=loss.item(), ce=ce.item(), grad_norm=norm.item()))
    tensors |= {f"final.{k}": v.detach() for k, v in trained.items()}
    if batch_norm == "batch":
        tensors |= {f"final.{k}": v for k, v in model.named_buffers() if v.is_floating_point()}
    model.eval()
    with torch.no_grad():
        said = [model.greedy(image) for image in images]
    return tensors, trace, [words for words, _ in said], min(margin for _, margin in said)


def make_case(name, model, images, tokens, tuned, batch_norm):
    """Runs in float64 and, for the noise, in float32; writes both files."""
    exact = run(copy.deepcopy(model).double(), images.double(), tokens, tuned, batch_norm)
    single = run(copy.deepcopy(model), images, tokens, tuned, batch_norm)
    tensors, trace, captions, margin = exact
    noise = {k: float((v - single[0][k].double()).abs().max()) for k, v in tensors.items()}
    noise |= {k: max(abs(a[k] - b[k]) for a, b in zip(trace, single[1])) for k in trace[0]}
    assert captions == single[2] and margin > 0.01, f"{name}: captions hang by {margin}"
    save({k: v.float() for k, v in tensors.items()}, name)
    case = dict(tuned=tuned, batch_norm=batch_norm, size=images.shape[-1], steps=STEPS, limit=LIMIT)
    numbers = dict(case=case, trace=trace, captions=captions, margin=margin, noise=noise)
    (HERE / f"{name}.json").write_text(json.dumps(numbers, indent=1) + "\n")
    print(f"{name}: loss {trace[0]['loss']:.4f} -> {trace[-1]['loss']:.4f}, noise {noise['loss']:.1e}, "
          f"margin {margin:.3f}, {captions}")


def make_ops():
    """Single operations with the gradients of sum(output * d_output)."""
    torch.manual_seed(SEED)
    numbers = {}

    def random(*shape):
        return torch.randn(shape, dtype=torch.float64)

    def record(case, function, inputs, **more):
        """`function(**inputs)` gives one output or a dict of outputs."""
        for value in inputs.values():
            value.requires_grad_(True)
        outputs = function(**inputs)
        outputs = outputs if isinstance(outputs, dict) else {"y": outputs}
        weights = {name: random(*value.shape) for name, value in outputs.items()}
        sum((outputs[name] * weights[name]).sum() for name in outputs).backward()
        kept = dict(inputs) | outputs | more | {f"d_{k}": v for k, v in weights.items()}
        kept |= {f"d_{k}": v.grad for k, v in inputs.items()}
        numbers.update({f"{case}.{k}": v.detach() for k, v in kept.items()})

    for case, stride, padding, x, w in [
        ("conv_3x3_s2_p1", 2, 1, (2, 3, 9, 6), (4, 3, 3, 3)),
        ("conv_3x3_s1_p1", 1, 1, (2, 5, 4, 7), (3, 5, 3, 3)),
        ("conv_7x7_s2_p3", 2, 3, (2, 3, 13, 10), (5, 3, 7, 7)),
        ("conv_1x1_s2_p0", 2, 0, (3, 4, 5, 6), (7, 4, 1, 1)),
    ]:
        record(case, lambda x, w: F.conv2d(x, w, stride=stride, padding=padding),
               dict(x=random(*x), w=random(*w)))
    record("max_pool_3x3_s2_p1", lambda x: F.max_pool2d(x, 3, 2, padding=1), dict(x=random(2, 3, 7, 8)))

    mean, var = random(5), random(5) ** 2 + 0.1
    after = mean.clone(), var.clone()
    record("batch_norm_batch",
           lambda x, weight, bias: F.batch_norm(x, *after, weight, bias, training=True),
           dict(x=3 * random(2, 5, 3, 4) + 1, weight=random(5), bias=random(5)),
           running_mean=mean, running_var=var, running_mean_after=after[0], running_var_after=after[1])
    record("batch_norm_running",
           lambda x, weight, bias: F.batch_norm(x, mean, var, weight, bias),
           dict(x=random(2, 5, 3, 4), weight=random(5), bias=random(5)), running_mean=mean, running_var=var)

    for n in (2, 3, 8, 14, 20):  # row i of the matrix says which cells output i averages
        numbers[f"adaptive_pool_{n}_to_{POOL}.matrix"] = F.adaptive_avg_pool1d(
            torch.eye(n, dtype=torch.float64), POOL).T

    lstm = nn.LSTM(5, 4, 1).double()
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")

    def run_lstm(x, h0, c0, **weights):
        given = {f"{k}_l0": v for k, v in weights.items()}
        y, (h, c) = torch.func.functional_call(lstm, given, (x, (h0[None], c0[None])))
        return dict(y=y, c=c[0])

    weights = {k: getattr(lstm, f"{k}_l0").detach().clone() for k in names}
    record("lstm", run_lstm, dict(x=random(6, 3, 5), h0=random(3, 4), c0=random(3, 4)) | weights)

    target = torch.tensor([3, 0, 6, 1, 0])
    record("cross_entropy", lambda x: F.cross_entropy(x, target, ignore_index=PAD), dict(x=3 * random(5, 7)),
           target=target.to(torch.uint32))

    for case, make in [
        ("sgd", lambda p: torch.optim.SGD(p, lr=0.9, momentum=0.9, weight_decay=1e-2)),
        ("adam", lambda p: torch.optim.Adam(p, lr=4e-4, weight_decay=1e-2)),
    ]:
        p, gradients = nn.Parameter(random(9)), random(4, 9)
        numbers[f"{case}.before"], numbers[f"{case}.gradients"] = p.detach().clone(), gradients
        optimiser, after = make([p]), []
        for gradient in gradients:
            p.grad = gradient.clone()
            optimiser.step()
            after.append(p.detach().clone())
        numbers[f"{case}.after"] = torch.stack(after)
    save(numbers, "ops")


def save(tensors, name):
    save_file({k: v.detach().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}, HERE / f"{name}.safetensors")


def main():
    torch.set_num_threads(1)
    make_ops()
    batches = {64: make_batch(64, (7, 3, 5, 6)), 96: make_batch(96, (4, 6, 3))}
    for name, kind in (("show_tell", ShowTell), ("attend", Attend)):
        torch.manual_seed(SEED)
        model = kind()
        prepare(model, WARM[name], *batches[64])
        save({k: v for k, v in model.state_dict().items() if v.is_floating_point()}, f"{name}.init")
        for encoder in ("frozen", "tuned"):
            for batch_norm in ("running", "batch"):
                make_case(f"{name}.{encoder}.{batch_norm}", model, *batches[64], encoder == "tuned", batch_norm)
        if kind is Attend:  # an odd map: 3x3 cells
            make_case(f"{name}.frozen.running.96", model, *batches[96], False, "running")


if __name__ == "__main__":
    main()
