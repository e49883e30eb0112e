"""The models of the zoo: name -> graph. Sizes are chosen so that one core takes about 2 to 60 ms for one item."""

import zlib
from collections.abc import Callable
from functools import partial

from onnx import ModelProto

from zoo import convnets, mobile, tables, transformers
from zoo.graph import Graph

MODELS: dict[str, Callable[[Graph], ModelProto]] = {
    "resnet18": partial(convnets.resnet, depths=(2, 2, 2, 2), bottleneck=False, size=160),
    "resnet34": partial(convnets.resnet, depths=(3, 4, 6, 3), bottleneck=False, size=128),
    "resnet50": partial(convnets.resnet, depths=(3, 4, 6, 3), bottleneck=True, size=128),
    "resnet50_narrow": partial(convnets.resnet, depths=(3, 4, 6, 3), bottleneck=True, size=192, width=24),
    "resnet20_small": partial(convnets.resnet, depths=(3, 3, 3), bottleneck=False, size=160, width=32),
    "vgg11": partial(convnets.vgg, depths=(1, 1, 2, 2, 2), size=128, width=32),
    "vgg16": partial(convnets.vgg, depths=(2, 2, 3, 3, 3), size=96, width=40),
    "densenet121": partial(convnets.densenet, depths=(6, 12, 24, 16), size=96),
    "densenet_small": partial(convnets.densenet, depths=(6, 6, 6), growth=16, size=160),
    "googlenet": partial(convnets.inception, size=128),
    "inception_v3": partial(convnets.inception_v3, size=149, scale=0.5),
    "squeezenet": partial(convnets.squeezenet, size=224),
    "convnext_atto": partial(convnets.convnext, depths=(2, 2, 6, 2), widths=(40, 80, 160, 320), size=160),
    "convnext_femto": partial(convnets.convnext, depths=(3, 3, 9, 3), widths=(48, 96, 192, 384), size=128),
    "unet_small": partial(convnets.unet, size=96, width=12),
    "unet_wide": partial(convnets.unet, size=64, width=32, depth=3),
    "tcn": partial(convnets.tcn, length=512, width=128, depth=6),
    "tcn_wide": partial(convnets.tcn, length=128, width=320, depth=6),
    "mobilenet_v1": partial(mobile.mobilenet_v1, scale=1.0, size=160),
    "mobilenet_v1_half": partial(mobile.mobilenet_v1, scale=0.5, size=224),
    "mobilenet_v2": partial(mobile.mobilenet_v2, scale=1.0, size=160),
    "mobilenet_v2_wide": partial(mobile.mobilenet_v2, scale=1.4, size=128),
    "mobilenet_v3": partial(mobile.mobilenet_v3, scale=1.0, size=192),
    "efficientnet_b0": partial(mobile.efficientnet, size=128),
    "efficientnet_b2": partial(mobile.efficientnet, size=96, scale=1.1, depth=1.2),
    "mnasnet": partial(mobile.mnasnet, size=160),
    "shufflenet_v2": partial(mobile.shufflenet, size=192),
    "shufflenet_v2_wide": partial(mobile.shufflenet, size=128, widths=(244, 488, 976)),
    "bert_tiny": partial(transformers.encoder, layers=2, width=128, n_heads=2, length=256),
    "bert_mini": partial(transformers.encoder, layers=4, width=256, n_heads=4, length=64),
    "bert_small": partial(transformers.encoder, layers=4, width=512, n_heads=8, length=32),
    "bert_medium": partial(transformers.encoder, layers=8, width=384, n_heads=6, length=48),
    "bert_long": partial(transformers.encoder, layers=3, width=192, n_heads=3, length=256),
    "albert": partial(transformers.encoder, layers=6, width=384, n_heads=6, length=32, embedded=128),
    "electra_small": partial(transformers.encoder, layers=6, width=256, n_heads=4, length=64, embedded=128),
    "gpt_step": partial(transformers.gpt_step, layers=8, width=512, n_heads=8, past=128),
    "gpt_step_long": partial(transformers.gpt_step, layers=6, width=512, n_heads=8, past=1024),
    "vit_tiny": partial(transformers.vit, layers=6, width=192, n_heads=3, size=160),
    "vit_small": partial(transformers.vit, layers=6, width=320, n_heads=5, size=96),
    "mixer": partial(transformers.mixer, layers=6, width=256, size=128),
    "lstm": partial(tables.recurrent, cell="LSTM", length=96, width=320, layers=2),
    "lstm_both_ways": partial(tables.recurrent, cell="LSTM", length=96, width=192, layers=2, both_ways=True),
    "gru": partial(tables.recurrent, cell="GRU", length=128, width=256, layers=2),
    "mlp_wide": partial(tables.mlp, features=512, width=3072, depth=3),
    "mlp_deep": partial(tables.mlp, features=256, width=1280, depth=12),
    "autoencoder": partial(tables.autoencoder, features=4096, widths=(1536, 512, 64)),
    "resnet_table": partial(tables.resnet_table, features=128, width=768, depth=6),
    "dlrm": partial(tables.dlrm, tables=26, rows=20_000, width=32, bottom=(1024, 1024, 256), top=(3072, 2048, 512)),
    "wide_deep": partial(tables.wide_deep, tables=26, rows=10_000, width=32, deep=(3072, 2048, 512)),
}


def build(name: str, *, seed: int = 0) -> ModelProto:
    """The graph of one model, its weights drawn from the seed and the name."""
    return MODELS[name](Graph(name, seed=seed * 2**32 + zlib.crc32(name.encode())))
