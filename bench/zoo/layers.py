"""Layers of convolutional networks: convolution, pooling, squeeze-and-excitation, heads."""

from zoo.graph import Graph


def conv(
    g: Graph,
    x: str,
    width: int,
    kernel: int | tuple[int, int] = 3,
    *,
    stride: int = 1,
    groups: int = 1,
    act: str | None = "relu",
) -> str:
    """2-D, padded to keep the size, with the batch normalisation after it folded in."""
    channels, height, breadth = g.shape[x]
    kh, kw = (kernel, kernel) if isinstance(kernel, int) else kernel
    fan_in = channels // groups * kh * kw
    weight = g.weight(width, channels // groups, kh, kw, fan_in=fan_in, gain=1.4 if act else 1.0)
    bias = g.weight(width, fan_in=100)
    shape = (width, -(-height // stride), -(-breadth // stride))
    pads = [kh // 2, kw // 2, (kh - 1) // 2, (kw - 1) // 2]
    y = g.op("Conv", x, weight, bias, shape=shape, kernel_shape=[kh, kw], strides=[stride] * 2, pads=pads, group=groups)
    return g.act(y, act)


def depthwise(g: Graph, x: str, kernel: int = 3, *, stride: int = 1, act: str | None = "relu") -> str:
    width = g.shape[x][0]
    return conv(g, x, width, kernel, stride=stride, groups=width, act=act)


def batch_norm(g: Graph, x: str, act: str | None = "relu") -> str:
    """One that no convolution comes before, so that nothing can fold it in."""
    width = g.shape[x][0]
    one, zero = g.constant([1.0] * width), g.constant([0.0] * width)
    return g.act(g.op("BatchNormalization", x, one, zero, zero, one, shape=g.shape[x]), act)


def pool(g: Graph, x: str, kind: str = "MaxPool", kernel: int = 3, stride: int = 2) -> str:
    """Padded as convolutions are; an average leaves the padding out."""
    width, height, breadth = g.shape[x]
    pads = [kernel // 2, kernel // 2, (kernel - 1) // 2, (kernel - 1) // 2]
    shape = (width, -(-height // stride), -(-breadth // stride))
    return g.op(kind, x, shape=shape, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads)


def squeeze_excite(g: Graph, x: str, reduced: int, act: str = "relu", gate: str = "sigmoid") -> str:
    width = g.shape[x][0]
    pooled = g.op("GlobalAveragePool", x, shape=(width, 1, 1))
    gates = conv(g, conv(g, pooled, reduced, 1, act=act), width, 1, act=None)
    gates = g.op("HardSigmoid", gates, shape=(width, 1, 1)) if gate == "hard" else g.act(gates, gate)
    return g.mul(x, gates)


def flatten(g: Graph, x: str) -> str:
    size = 1
    for n in g.shape[x]:
        size *= n
    return g.op("Flatten", x, shape=(size,), axis=1)


def classify(g: Graph, x: str, classes: int = 1000) -> str:
    """Global average, then scores."""
    pooled = g.op("GlobalAveragePool", x, shape=(g.shape[x][0], 1, 1))
    return g.dense(flatten(g, pooled), classes)
