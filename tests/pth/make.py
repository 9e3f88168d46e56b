#!/usr/bin/env python3
"""Makes the small PyTorch files that tests/weights_pth.rs reads.

    pip install torch safetensors numpy
    python tests/pth/make.py

  zip.pth, legacy.pth   one state dict in both containers: every element type, views into a common storage,
                        a transposed tensor, a parameter, an empty one
  expected.safetensors  the same tensors, each contiguous
  nested.pth            {"epoch": …, "state_dict": that of a module, …}
  module.pth            a whole module: not a state dict
  expanded.pth          a tensor with more elements than its storage
  script.pth            a TorchScript program
"""
import collections, pathlib
import torch
from safetensors.torch import save_file
from torch import nn

HERE = pathlib.Path(__file__).parent
torch.manual_seed(8)


def main():
    base = torch.arange(24, dtype=torch.float32) / 8
    state = collections.OrderedDict(
        plain=torch.randn(2, 3),
        parameter=nn.Parameter(torch.randn(3)),
        head=base[:6].view(2, 3),
        tail=base[20:],
        transposed=base.view(4, 6).T,
        column=base.view(4, 6)[:, 2],
        channels_last=torch.randn(1, 3, 2, 2).contiguous(memory_format=torch.channels_last),
        empty=torch.zeros(0, 3),
        count=torch.tensor(-7),
    )
    for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.int32, torch.int16, torch.int8, torch.uint8):
        state[str(dtype).removeprefix("torch.")] = torch.tensor([1, 100, 3]).to(dtype)
    state["bool"] = torch.tensor([True, False])
    torch.save(state, HERE / "zip.pth")
    torch.save(state, HERE / "legacy.pth", _use_new_zipfile_serialization=False)
    save_file({k: v.detach().clone(memory_format=torch.contiguous_format) for k, v in state.items()},
              HERE / "expected.safetensors")
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    torch.save({"epoch": 3, "lr": 0.1, "best": None, "log": ["a", (1, -2, 1 << 40)], "state_dict": module.state_dict()},
               HERE / "nested.pth")
    torch.save(module, HERE / "module.pth")
    torch.save({"expanded": torch.zeros(1).expand(5)}, HERE / "expanded.pth")
    torch.jit.save(torch.jit.script(nn.Linear(1, 1)), HERE / "script.pth")


if __name__ == "__main__":
    main()
