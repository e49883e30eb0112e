"""Convolutional networks for phones: MobileNet V1 to V3, EfficientNet, ShuffleNet V2, MnasNet."""

from onnx import ModelProto

from zoo.graph import Graph
from zoo.layers import classify, conv, depthwise, flatten, pool, squeeze_excite


def _eight(width: float) -> int:
    """Channels come in eights."""
    return max(8, int(width + 4) // 8 * 8)


def mobilenet_v1(g: Graph, *, scale: float = 1.0, size: int = 224) -> ModelProto:
    """Howard et al. 2017, arXiv:1704.04861."""
    x = conv(g, g.input("image", (3, size, size)), _eight(32 * scale), stride=2, act="relu6")
    rows = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))
    for width, stride in rows:
        x = conv(g, depthwise(g, x, stride=stride, act="relu6"), _eight(width * scale), 1, act="relu6")
    return g.finish(classify(g, x))


def inverted(
    g: Graph, x: str, width: int, *, kernel: int, stride: int, expand: float, act: str, squeeze: float = 0.0
) -> str:
    """Expand, filter each channel, project (Sandler et al. 2018). squeeze: share of the channels before expansion."""
    channels = g.shape[x][0]
    y = x if expand == 1 else conv(g, x, _eight(channels * expand), 1, act=act)
    y = depthwise(g, y, kernel, stride=stride, act=act)
    if squeeze:
        hard = act in ("relu", "hard_swish")
        reduced = _eight(channels * squeeze)
        y = squeeze_excite(g, y, reduced, "relu" if hard else act, "hard" if hard else "sigmoid")
    y = conv(g, y, width, 1, act=None)
    return g.add(x, y) if stride == 1 and channels == width else y


def mobilenet_v2(g: Graph, *, scale: float = 1.0, size: int = 224) -> ModelProto:
    """Sandler et al. 2018, arXiv:1801.04381."""
    x = conv(g, g.input("image", (3, size, size)), _eight(32 * scale), stride=2, act="relu6")
    rows = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for expand, width, depth, stride in rows:
        for i in range(depth):
            step = 1 if i else stride
            x = inverted(g, x, _eight(width * scale), kernel=3, stride=step, expand=expand, act="relu6")
    return g.finish(classify(g, conv(g, x, 1280, 1, act="relu6")))


def mobilenet_v3(g: Graph, *, scale: float = 1.0, size: int = 224) -> ModelProto:
    """The large one (Howard et al. 2019, arXiv:1905.02244)."""
    rows = (
        (3, 16, 16, 0, "relu", 1),
        (3, 64, 24, 0, "relu", 2),
        (3, 72, 24, 0, "relu", 1),
        (5, 72, 40, 1, "relu", 2),
        (5, 120, 40, 1, "relu", 1),
        (5, 120, 40, 1, "relu", 1),
        (3, 240, 80, 0, "hard_swish", 2),
        (3, 200, 80, 0, "hard_swish", 1),
        (3, 184, 80, 0, "hard_swish", 1),
        (3, 184, 80, 0, "hard_swish", 1),
        (3, 480, 112, 1, "hard_swish", 1),
        (3, 672, 112, 1, "hard_swish", 1),
        (5, 672, 160, 1, "hard_swish", 2),
        (5, 960, 160, 1, "hard_swish", 1),
        (5, 960, 160, 1, "hard_swish", 1),
    )
    x = conv(g, g.input("image", (3, size, size)), 16, stride=2, act="hard_swish")
    for kernel, inner, width, excited, act, stride in rows:
        width, channels = _eight(width * scale), g.shape[x][0]
        expand = inner * scale / channels
        squeeze = expand / 4 if excited else 0.0
        x = inverted(g, x, width, kernel=kernel, stride=stride, expand=expand, act=act, squeeze=squeeze)
    x = conv(g, x, _eight(960 * scale), 1, act="hard_swish")
    pooled = flatten(g, g.op("GlobalAveragePool", x, shape=(g.shape[x][0], 1, 1)))
    return g.finish(g.dense(g.dense(pooled, 1280, "hard_swish"), 1000))


def efficientnet(g: Graph, *, size: int, scale: float = 1.0, depth: float = 1.0) -> ModelProto:
    """Tan & Le 2019, arXiv:1905.11946; B0 with scale and depth 1."""
    x = conv(g, g.input("image", (3, size, size)), _eight(32 * scale), stride=2, act="silu")
    rows = (
        (1, 16, 1, 1, 3),
        (6, 24, 2, 2, 3),
        (6, 40, 2, 2, 5),
        (6, 80, 3, 2, 3),
        (6, 112, 3, 1, 5),
        (6, 192, 4, 2, 5),
        (6, 320, 1, 1, 3),
    )
    for expand, width, repeats, stride, kernel in rows:
        for i in range(-(-int(repeats * depth * 10) // 10)):
            step, wide = 1 if i else stride, _eight(width * scale)
            x = inverted(g, x, wide, kernel=kernel, stride=step, expand=expand, act="silu", squeeze=0.25)
    return g.finish(classify(g, conv(g, x, _eight(1280 * scale), 1, act="silu")))


def mnasnet(g: Graph, *, size: int = 224, scale: float = 1.0) -> ModelProto:
    """Tan et al. 2019, arXiv:1807.11626, without squeeze-and-excitation."""
    x = conv(g, g.input("image", (3, size, size)), 32, stride=2)
    x = conv(g, depthwise(g, x), 16, 1, act=None)
    rows = (
        (3, 24, 3, 2, 3),
        (3, 40, 3, 2, 5),
        (6, 80, 3, 2, 5),
        (6, 96, 2, 1, 3),
        (6, 192, 4, 2, 5),
        (6, 320, 1, 1, 3),
    )
    for expand, width, depth, stride, kernel in rows:
        for i in range(depth):
            step = 1 if i else stride
            x = inverted(g, x, _eight(width * scale), kernel=kernel, stride=step, expand=expand, act="relu")
    return g.finish(classify(g, conv(g, x, 1280, 1)))


def shufflenet(g: Graph, *, size: int = 224, widths: tuple[int, int, int] = (116, 232, 464)) -> ModelProto:
    """Version 2 (Ma et al. 2018, arXiv:1807.11164): half of the channels pass, then all are shuffled."""
    x = pool(g, conv(g, g.input("image", (3, size, size)), 24, stride=2))
    for width, depth in zip(widths, (4, 8, 4), strict=True):
        half = width // 2
        for i in range(depth):
            if i:
                _, height, breadth = g.shape[x]
                sizes = g.constant([half, half], "int64")
                left = g.op("Split", x, sizes, shape=(half, height, breadth), outputs=2, axis=1)
                right = f"{left}.1"
                g.shape[right] = g.shape[left]
            else:
                left, right = conv(g, depthwise(g, x, stride=2, act=None), half, 1), x
            stride = 1 if i else 2
            right = conv(g, depthwise(g, conv(g, right, half, 1), stride=stride, act=None), half, 1)
            x = g.concat([left, right])
            _, height, breadth = g.shape[x]
            x = g.transpose(g.reshape(x, 2, half, height, breadth), 2, 1, 3, 4)
            x = g.reshape(x, width, height, breadth)
    return g.finish(classify(g, conv(g, x, 1024, 1)))
