"""Networks with an answer per place of the image: a detector of the YOLOv5 kind, a U-Net (Ronneberger et al. 2015)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

__all__ = ["Detector", "UNet"]


class Conv(nn.Module):
    def __init__(self, channels: int, out: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(out)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


class Bottleneck(nn.Module):
    def __init__(self, channels: int, shortcut: bool) -> None:
        super().__init__()
        self.cv1 = Conv(channels, channels, 1)
        self.cv2 = Conv(channels, channels, 3)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv2(self.cv1(x))
        return x + y if self.shortcut else y


class CrossStage(nn.Module):
    """A cross stage partial block (Wang et al. 2019): half of the channels go around the bottlenecks."""

    def __init__(self, channels: int, out: int, depth: int, shortcut: bool = True) -> None:
        super().__init__()
        self.cv1 = Conv(channels, out // 2)
        self.cv2 = Conv(channels, out // 2)
        self.m = nn.Sequential(*(Bottleneck(out // 2, shortcut) for _ in range(depth)))
        self.cv3 = Conv(out, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))


class PyramidPool(nn.Module):
    """SPPF: three max pools of one window in a row."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cv1 = Conv(channels, channels // 2)
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.cv2 = Conv(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.cv1(x)
        once = self.pool(x)
        twice = self.pool(once)
        return self.cv2(torch.cat((x, once, twice, self.pool(twice)), 1))


class Head(nn.Module):
    """Boxes in pixels with their scores: [N, anchors * cells, 5 + classes] over all scales."""

    strides = (8, 16, 32)

    def __init__(self, channels: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.fields = 5 + classes
        self.m = nn.ModuleList(nn.Conv2d(width, 3 * self.fields, 1) for width in channels)
        sizes = torch.tensor(
            [
                [[10.0, 13], [16, 30], [33, 23]],
                [[30, 61], [62, 45], [59, 119]],
                [[116, 90], [156, 198], [373, 326]],
            ]
        )
        self.register_buffer("anchors", sizes[:, None, :, None, None])

    def forward(self, features: list[Tensor]) -> Tensor:
        boxes = []
        for level, x in enumerate(features):
            x = self.m[level](x)
            batch, _, height, width = x.shape
            x = x.view(batch, 3, self.fields, height, width).permute(0, 1, 3, 4, 2).sigmoid()
            place, size, scores = x.split((2, 2, self.fields - 4), 4)
            rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
            grid = torch.stack((columns, rows), 2).to(x.dtype) - 0.5
            place = (place * 2 + grid) * self.strides[level]
            size = (size * 2) ** 2 * self.anchors[level]
            boxes.append(torch.cat((place, size, scores), 4).view(batch, -1, self.fields))
        return torch.cat(boxes, 1)


class Detector(nn.Module):
    """A CSP backbone, a pyramid pool, a neck up and down again, three heads."""

    def __init__(
        self, *, width: int = 16, depths: tuple[int, ...] = (1, 2, 3, 1), classes: int = 80
    ) -> None:
        super().__init__()
        w = [width << index for index in range(5)]
        self.stem = Conv(3, w[0], 6, 2)
        self.stem.conv.padding = (2, 2)
        self.down = nn.ModuleList(Conv(w[i], w[i + 1], 3, 2) for i in range(4))
        self.stage = nn.ModuleList(CrossStage(w[i + 1], w[i + 1], depths[i]) for i in range(4))
        self.pool = PyramidPool(w[4])
        self.lateral = nn.ModuleList((Conv(w[4], w[3]), Conv(w[3], w[2])))
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.merge = nn.ModuleList(
            (CrossStage(w[4], w[3], 1, False), CrossStage(w[3], w[2], 1, False))
        )
        self.again = nn.ModuleList((Conv(w[2], w[2], 3, 2), Conv(w[3], w[3], 3, 2)))
        self.out = nn.ModuleList(
            (CrossStage(w[3], w[3], 1, False), CrossStage(w[4], w[4], 1, False))
        )
        self.head = Head((w[2], w[3], w[4]), classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        scales = []
        for down, stage in zip(self.down, self.stage, strict=True):
            x = stage(down(x))
            scales.append(x)
        deep = self.lateral[0](self.pool(x))
        middle = self.lateral[1](self.merge[0](torch.cat((self.up(deep), scales[2]), 1)))
        small = self.merge[1](torch.cat((self.up(middle), scales[1]), 1))
        medium = self.out[0](torch.cat((self.again[0](small), middle), 1))
        large = self.out[1](torch.cat((self.again[1](medium), deep), 1))
        return self.head([small, medium, large])


class Twice(nn.Sequential):
    def __init__(self, channels: int, out: int) -> None:
        layers: list[nn.Module] = []
        for inputs in (channels, out):
            layers += [nn.Conv2d(inputs, out, 3, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
        super().__init__(*layers)


class UNet(nn.Module):
    """An image [N, 3, S, S] -> a score per class and pixel; `transposed` convolutions or bilinear resizing."""

    def __init__(
        self, *, width: int = 32, depth: int = 4, classes: int = 21, transposed: bool = True
    ) -> None:
        super().__init__()
        widths = [width << index for index in range(depth + 1)]
        self.first = Twice(3, width)
        self.down = nn.ModuleList(Twice(widths[i], widths[i + 1]) for i in range(depth))
        self.pool = nn.MaxPool2d(2)
        self.transposed = transposed
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(widths[i + 1], widths[i], 2, 2)
            if transposed
            else nn.Conv2d(widths[i + 1], widths[i], 1)
            for i in reversed(range(depth))
        )
        self.merge = nn.ModuleList(Twice(2 * widths[i], widths[i]) for i in reversed(range(depth)))
        self.classifier = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        kept = []
        for down in self.down:
            kept.append(x)
            x = down(self.pool(x))
        for up, merge in zip(self.up, self.merge, strict=True):
            if not self.transposed:
                x = interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
            x = merge(torch.cat((kept.pop(), up(x)), 1))
        return self.classifier(x)
