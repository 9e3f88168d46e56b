#!/usr/bin/env python3
"""Writes lstm.safetensors and attention.safetensors beside itself: inputs, outputs and gradients of small
f64 cases as PyTorch computes them. Gradients are named `d_<input>`.

    pip install torch safetensors numpy
    python tests/goldens/sequence.py
"""
import pathlib

import torch
from safetensors.torch import save_file
from torch.nn import functional as F

HERE = pathlib.Path(__file__).parent
torch.manual_seed(8)
torch.set_default_dtype(torch.float64)


def save(name, inputs, outputs):
    gradients = {f"d_{k}": v.grad for k, v in inputs.items() if v.grad is not None}
    tensors = {k: v.detach().contiguous() for k, v in (inputs | outputs | gradients).items()}
    save_file(tensors, HERE / f"{name}.safetensors")


def leaves(**shapes):
    return {k: torch.randn(*shape).requires_grad_() for k, shape in shapes.items()}


def lstm(steps=4, batch=3, inputs=5, hidden=3, layers=2):
    model = torch.nn.LSTM(inputs, hidden, layers)
    x = leaves(x=(steps, batch, inputs), h0=(layers, batch, hidden), c0=(layers, batch, hidden))
    y, _ = model(x["x"], (x["h0"], x["c0"]))
    dy = torch.randn_like(y)
    (y * dy).sum().backward()
    save("lstm", x | dict(model.named_parameters()), dict(y=y, dy=dy))


def pool(cells, grid, size):
    """(B, C, K) cells of a grid to (B, P, K) positions, as the models' adaptive pooling does it."""
    b, _, k = cells.shape
    maps = cells.transpose(1, 2).reshape(b, k, *grid)
    return F.adaptive_avg_pool2d(maps, size).flatten(2).transpose(1, 2)


def attention(steps=3, batch=2, grid=(8, 6), size=(14, 9), a=5, d=4, strength=0.7):
    """Three steps over the materialised positions, with the doubly stochastic regulariser."""
    cells = grid[0] * grid[1]
    x = leaves(keys=(batch, cells, a), values=(batch, cells, d), queries=(steps, batch, a), weight=(1, a), bias=(1,))
    keys, values = pool(x["keys"], grid, size), pool(x["values"], grid, size)
    alphas, contexts = [], []
    for query in x["queries"]:
        score = F.linear(F.relu(keys + query[:, None]), x["weight"], x["bias"])[..., 0]
        alpha = score.softmax(1)
        alphas.append(alpha)
        contexts.append((values * alpha[..., None]).sum(1))
    alphas, contexts, mean = torch.stack(alphas), torch.stack(contexts), values.mean(1)
    regulariser = strength * ((1 - alphas.sum(0)) ** 2).mean()
    d_contexts, d_mean = torch.randn_like(contexts), torch.randn_like(mean)
    ((contexts * d_contexts).sum() + (mean * d_mean).sum() + regulariser).backward()
    outputs = dict(alphas=alphas, contexts=contexts, mean=mean, regulariser=regulariser[None])
    save("attention", x, outputs | dict(d_contexts=d_contexts, d_mean=d_mean))


lstm()
attention()
