"""The acceptance networks in plain PyTorch, with torchvision's parameter names and seeded random weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["efficientnet_b0", "example_input", "mobilenet_v2", "resnet18", "resnet50", "seeded"]


class BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _downsample(channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + shortcut)


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _downsample(channels, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + shortcut)


def _downsample(channels: int, out: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and channels == out:
        return None
    return nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))


class ResNet(nn.Module):
    """He et al. 2015, with the stride on the 3x3 convolution."""

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: Sequence[int],
        width: int,
        classes: int,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels = width
        for stage, depth in enumerate(depths):
            blocks = []
            for index in range(depth):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(block(channels, width << stage, stride))
                channels = (width << stage) * block.expansion
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.stages = len(depths)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for stage in range(self.stages):
            x = getattr(self, f"layer{stage + 1}")(x)
        return self.fc(torch.flatten(self.avgpool(x), 1))


class ConvNormAct(nn.Sequential):
    def __init__(
        self,
        channels: int,
        out: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        act: type[nn.Module] | None = nn.ReLU6,
    ) -> None:
        conv = nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False)
        layers: list[nn.Module] = [conv, nn.BatchNorm2d(out)]
        if act is not None:
            layers.append(act(inplace=True))
        super().__init__(*layers)


class InvertedResidual(nn.Module):
    def __init__(self, channels: int, out: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = channels * expand
        layers: list[nn.Module] = []
        if expand != 1:
            layers.append(ConvNormAct(channels, hidden, 1))
        layers += [
            ConvNormAct(hidden, hidden, 3, stride, groups=hidden),
            nn.Conv2d(hidden, out, 1, bias=False),
            nn.BatchNorm2d(out),
        ]
        self.conv = nn.Sequential(*layers)
        self.shortcut = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.shortcut else self.conv(x)


def _round8(channels: float) -> int:
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


class MobileNetV2(nn.Module):
    """Sandler et al. 2018; `stages` cuts the list of stages short."""

    rows = (  # expand, channels, repeats, stride
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )

    def __init__(self, width: float, classes: int, stages: int) -> None:
        super().__init__()
        channels = _round8(32 * width)
        features: list[nn.Module] = [ConvNormAct(3, channels, 3, 2)]
        for expand, out, repeats, stride in self.rows[:stages]:
            out = _round8(out * width)
            for index in range(repeats):
                features.append(
                    InvertedResidual(channels, out, stride if index == 0 else 1, expand)
                )
                channels = out
        last = _round8(1280 * max(1.0, width)) if stages == len(self.rows) else 4 * channels
        features.append(ConvNormAct(channels, last, 1))
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, classes))

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.adaptive_avg_pool2d(self.features(x), (1, 1))
        return self.classifier(torch.flatten(x, 1))


class SqueezeExcitation(nn.Module):
    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.activation = nn.SiLU(inplace=True)
        self.scale_activation = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        gate = self.activation(self.fc1(self.avgpool(x)))
        return self.scale_activation(self.fc2(gate)) * x


class MBConv(nn.Module):
    def __init__(self, channels: int, out: int, kernel: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = _round8(channels * expand)
        layers: list[nn.Module] = []
        if expand != 1:
            layers.append(ConvNormAct(channels, hidden, 1, act=nn.SiLU))
        layers += [
            ConvNormAct(hidden, hidden, kernel, stride, groups=hidden, act=nn.SiLU),
            SqueezeExcitation(hidden, max(1, channels // 4)),
            ConvNormAct(hidden, out, 1, act=None),
        ]
        self.block = nn.Sequential(*layers)
        self.shortcut = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        y = self.block(x)
        # Stochastic depth, torchvision's last step here, does nothing at inference.
        return y + x if self.shortcut else y


class EfficientNet(nn.Module):
    """Tan and Le 2019, the B0 table; `stages` cuts the list of stages short."""

    rows = (  # expand, kernel, stride, channels, repeats
        (1, 3, 1, 16, 1),
        (6, 3, 2, 24, 2),
        (6, 5, 2, 40, 2),
        (6, 3, 2, 80, 3),
        (6, 5, 1, 112, 3),
        (6, 5, 2, 192, 4),
        (6, 3, 1, 320, 1),
    )

    def __init__(self, width: float, classes: int, stages: int) -> None:
        super().__init__()
        channels = _round8(32 * width)
        features: list[nn.Module] = [ConvNormAct(3, channels, 3, 2, act=nn.SiLU)]
        for expand, kernel, stride, out, repeats in self.rows[:stages]:
            out = _round8(out * width)
            blocks = []
            for index in range(repeats):
                blocks.append(MBConv(channels, out, kernel, stride if index == 0 else 1, expand))
                channels = out
            features.append(nn.Sequential(*blocks))
        features.append(ConvNormAct(channels, 4 * channels, 1, act=nn.SiLU))
        self.features = nn.Sequential(*features)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            nn.Dropout(0.2, inplace=True), nn.Linear(4 * channels, classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


def seeded(net: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights that keep activations in range: BN statistics come from one random batch.

    Every gamma is drawn from [0.5, 1.5]: random initialisation elsewhere zeroes the last one of a
    residual block, and the branch with it.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan_in), generator=generator)
            if module.bias is not None:
                nn.init.normal_(module.bias, 0.0, 0.1, generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(module.bias, 0.0, 0.2, generator=generator)
            module.momentum = 1.0
    net.train()
    with torch.no_grad():
        # Statistics of small images put large ones far out of range; the other way round is harmless.
        net(torch.randn(4, 3, 224, 224, generator=generator))
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.clamp_(min=1e-3)
            module.momentum = 0.1
    return net.eval()


def resnet18(width: int = 64, depths: Sequence[int] = (2, 2, 2, 2), classes: int = 1000) -> ResNet:
    """ResNet-18; narrower and shallower on request."""
    return seeded(ResNet(BasicBlock, depths, width, classes))


def resnet50(width: int = 64, depths: Sequence[int] = (3, 4, 6, 3), classes: int = 1000) -> ResNet:
    """ResNet-50; narrower and shallower on request."""
    return seeded(ResNet(Bottleneck, depths, width, classes))


def mobilenet_v2(width: float = 1.0, stages: int = 7, classes: int = 1000) -> MobileNetV2:
    """MobileNetV2; narrower and shallower on request."""
    return seeded(MobileNetV2(width, classes, stages))


def efficientnet_b0(width: float = 1.0, stages: int = 7, classes: int = 1000) -> EfficientNet:
    """EfficientNet-B0; narrower and shallower on request."""
    return seeded(EfficientNet(width, classes, stages))


def example_input(size: int = 224, batch: int = 1, seed: int = 1) -> Tensor:
    """Seeded standard normal images, [batch, 3, size, size]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, size, size, generator=generator)
