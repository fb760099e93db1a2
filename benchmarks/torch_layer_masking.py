"""Layer masking in PyTorch as the published recipe reads: the pace lmjax is measured against.

Before every convolution, 1x1 included, as many rings of neighbor padding as the kernel is wide,
each ring by a depthwise 3x3 convolution; activations NCHW; a mask beside them (Balasubramanian &
Feizi, arXiv 2211.14646, section 3). Written from the paper; takes torchvision's ResNets.
"""

import torch
import torch.nn.functional as F


def neighbor_padding(x, mask, rings):
    channels = x.shape[1]
    ones = torch.ones(1, 1, 3, 3)
    kernel = ones.repeat(channels, 1, 1, 1)
    known = mask
    for _ in range(rings):
        counts = F.conv2d(known, ones, padding=1)
        sums = F.conv2d(x, kernel, padding=1, groups=channels)
        x = torch.where(known > 0, x, sums / counts.clamp(min=1))
        known = (counts > 0).float()
    return x


def conv(layer, x, mask):
    x = neighbor_padding(x, mask, layer.kernel_size[0])
    mask = F.max_pool2d(mask, layer.kernel_size, layer.stride, layer.padding)
    return layer(x) * mask, mask


def pointwise(layer, x, mask):
    return layer(x) * mask


def max_pool(layer, x, mask):
    return layer(x), F.max_pool2d(mask, layer.kernel_size, layer.stride, layer.padding)


def block(layers, x, mask):
    """A `BasicBlock` or `Bottleneck`."""
    y, y_mask = x, mask
    pairs = [(layers.conv1, layers.bn1), (layers.conv2, layers.bn2)]
    if hasattr(layers, "conv3"):
        pairs.append((layers.conv3, layers.bn3))
    for i, (convolution, norm) in enumerate(pairs):
        y, y_mask = conv(convolution, y, y_mask)
        y = pointwise(norm, y, y_mask)
        if i + 1 < len(pairs):
            y = pointwise(layers.relu, y, y_mask)
    if layers.downsample is not None:
        x, mask = conv(layers.downsample[0], x, mask)
        x = pointwise(layers.downsample[1], x, mask)
    mask = mask * y_mask
    return layers.relu(y + x) * mask, mask


@torch.no_grad()
def resnet(model, images, masks):
    """Logits of `images` `[N, C, H, W]` under `masks` `[N, H, W]` of 0 and 1."""
    mask = masks[:, None].float()
    x, mask = conv(model.conv1, images * mask, mask)
    x = pointwise(model.relu, pointwise(model.bn1, x, mask), mask)
    x, mask = max_pool(model.maxpool, x, mask)
    for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
        for layers in stage:
            x, mask = block(layers, x, mask)
    visible = mask.sum((2, 3)).clamp(min=1)
    return model.fc(x.sum((2, 3)) / visible)
