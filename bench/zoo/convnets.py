"""Convolutional networks: ResNet, VGG, DenseNet, Inception, SqueezeNet, ConvNeXt, U-Net and a temporal one."""

from collections.abc import Sequence

from onnx import ModelProto

from zoo.graph import Graph
from zoo.layers import batch_norm, classify, conv, depthwise, flatten, pool


def resnet(g: Graph, *, depths: Sequence[int], bottleneck: bool, size: int = 224, width: int = 64) -> ModelProto:
    """He et al. 2016, arXiv:1512.03385."""
    x = pool(g, conv(g, g.input("image", (3, size, size)), width, 7, stride=2))
    for stage, depth in enumerate(depths):
        inner = width << stage
        outer = 4 * inner if bottleneck else inner
        for i in range(depth):
            stride = 2 if stage and not i else 1
            same = stride == 1 and g.shape[x][0] == outer
            shortcut = x if same else conv(g, x, outer, 1, stride=stride, act=None)
            if bottleneck:
                x = conv(g, conv(g, conv(g, x, inner, 1), inner, stride=stride), outer, 1, act=None)
            else:
                x = conv(g, conv(g, x, inner, stride=stride), outer, act=None)
            x = g.act(g.add(x, shortcut), "relu")
    return g.finish(classify(g, x))


def vgg(g: Graph, *, depths: Sequence[int], size: int, width: int) -> ModelProto:
    """Simonyan & Zisserman 2015, arXiv:1409.1556; narrower, as its widths go."""
    x = g.input("image", (3, size, size))
    for stage, depth in enumerate(depths):
        for _ in range(depth):
            x = conv(g, x, width << min(stage, 3))
        x = pool(g, x, kernel=2)
    x = flatten(g, x)
    for _ in range(2):
        x = g.dense(x, 16 * width, "relu", gain=1.4)
    return g.finish(g.dense(x, 1000))


def densenet(g: Graph, *, depths: Sequence[int], growth: int = 32, size: int = 160) -> ModelProto:
    """Huang et al. 2017, arXiv:1608.06993. Its normalisations come before the convolutions and stay."""
    x = pool(g, conv(g, g.input("image", (3, size, size)), 2 * growth, 7, stride=2))
    for stage, depth in enumerate(depths):
        for _ in range(depth):
            new = conv(g, batch_norm(g, x), 4 * growth, 1)
            x = g.concat([x, conv(g, new, growth, act=None)])
        if stage < len(depths) - 1:
            x = conv(g, batch_norm(g, x), g.shape[x][0] // 2, 1, act=None)
            x = pool(g, x, "AveragePool", 2)
    return g.finish(classify(g, batch_norm(g, x)))


def inception(g: Graph, *, size: int = 160, scale: float = 1.0) -> ModelProto:
    """GoogLeNet (Szegedy et al. 2015, arXiv:1409.4842)."""
    widths = (
        (64, 96, 128, 16, 32, 32),
        (128, 128, 192, 32, 96, 64),
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
        (256, 160, 320, 32, 128, 128),
        (384, 192, 384, 48, 128, 128),
    )
    x = pool(g, conv(g, g.input("image", (3, size, size)), int(64 * scale), 7, stride=2))
    x = pool(g, conv(g, conv(g, x, int(64 * scale), 1), int(192 * scale)))
    for i, row in enumerate(widths):
        a, b1, b2, c1, c2, d = (max(8, int(w * scale)) for w in row)
        third = conv(g, conv(g, x, c1, 1), c2)
        x = g.concat([conv(g, x, a, 1), conv(g, conv(g, x, b1, 1), b2), third, conv(g, pool(g, x, stride=1), d, 1)])
        if i in (1, 6):
            x = pool(g, x)
    return g.finish(classify(g, x))


def inception_v3(g: Graph, *, size: int = 149, scale: float = 0.5) -> ModelProto:
    """Factorised blocks with 1x7 and 7x1 kernels (Szegedy et al. 2016, arXiv:1512.00567), five of them."""
    w = [max(8, int(n * scale)) for n in (32, 64, 80, 192, 128)]
    x = pool(g, conv(g, conv(g, g.input("image", (3, size, size)), w[0], stride=2), w[1]))
    x = pool(g, conv(g, conv(g, x, w[2], 1), w[3]))
    x = conv(g, x, 4 * w[3], stride=2)
    for _ in range(5):
        one = conv(g, conv(g, conv(g, x, w[4], 1), w[4], (1, 7)), w[3], (7, 1))
        two = conv(g, conv(g, conv(g, conv(g, x, w[4], 1), w[4], (7, 1)), w[4], (1, 7)), w[3], (7, 1))
        averaged = conv(g, pool(g, x, "AveragePool", 3, 1), w[3], 1)
        x = g.concat([conv(g, x, w[3], 1), one, two, averaged])
    return g.finish(classify(g, x))


def squeezenet(g: Graph, *, size: int = 224) -> ModelProto:
    """Version 1.1 (Iandola et al. 2016, arXiv:1602.07360)."""
    x = pool(g, conv(g, g.input("image", (3, size, size)), 64, stride=2))
    for i, squeezed in enumerate((16, 16, 32, 32, 48, 48, 64, 64)):
        if i in (2, 4):
            x = pool(g, x)
        x = conv(g, x, squeezed, 1)
        x = g.concat([conv(g, x, 4 * squeezed, 1), conv(g, x, 4 * squeezed)])
    x = conv(g, x, 1000, 1)
    return g.finish(flatten(g, g.op("GlobalAveragePool", x, shape=(1000, 1, 1))))


def convnext(g: Graph, *, depths: Sequence[int], widths: Sequence[int], size: int = 128) -> ModelProto:
    """Liu et al. 2022, arXiv:2201.03545: depthwise 7x7, then an MLP along the channels, which are moved last."""
    x = conv(g, g.input("image", (3, size, size)), widths[0], 4, stride=4, act=None)
    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        if stage:
            x = conv(g, x, width, 2, stride=2, act=None)
        for _ in range(depth):
            y = g.layer_norm(g.transpose(depthwise(g, x, 7, act=None), 2, 3, 1))
            y = g.dense(g.dense(y, 4 * width, "gelu", gain=1.4), width)
            x = g.add(x, g.transpose(y, 3, 1, 2))
    return g.finish(classify(g, x))


def unet(g: Graph, *, size: int, width: int, depth: int = 4) -> ModelProto:
    """Ronneberger et al. 2015, arXiv:1505.04597; upwards by transposed convolutions."""
    x, skips = g.input("image", (3, size, size)), []
    for level in range(depth):
        x = conv(g, conv(g, x, width << level), width << level)
        skips.append(x)
        x = pool(g, x, kernel=2)
    x = conv(g, conv(g, x, width << depth), width << depth)
    for level in reversed(range(depth)):
        channels, height, breadth = g.shape[x]
        weight = g.weight(channels, width << level, 2, 2, fan_in=channels)
        shape = (width << level, 2 * height, 2 * breadth)
        x = g.op("ConvTranspose", x, weight, shape=shape, kernel_shape=[2, 2], strides=[2, 2])
        x = conv(g, conv(g, g.concat([skips[level], x]), width << level), width << level)
    return g.finish(conv(g, x, 2, 1, act=None))


def tcn(g: Graph, *, length: int, width: int, depth: int) -> ModelProto:
    """Temporal convolutions, dilated and causal, in residual blocks (Bai et al. 2018, arXiv:1803.01271)."""
    x = g.input("series", (16, length))
    for level in range(depth):
        y = x
        for _ in range(2):
            channels = g.shape[y][0]
            weight = g.weight(width, channels, 3, fan_in=3 * channels, gain=1.4)
            pads, dilations = [2 << level, 0], [1 << level]
            shape = (width, length)
            y = g.op("Conv", y, weight, shape=shape, kernel_shape=[3], pads=pads, dilations=dilations)
            y = g.act(y, "relu")
        if g.shape[x][0] != width:
            weight = g.weight(width, g.shape[x][0], 1, fan_in=g.shape[x][0])
            x = g.op("Conv", x, weight, shape=(width, length), kernel_shape=[1])
        x = g.act(g.add(x, y), "relu")
    last = g.op("ReduceMean", x, shape=(width,), axes=[2], keepdims=0)
    return g.finish(g.dense(last, 10))
