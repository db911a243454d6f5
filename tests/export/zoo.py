"""Keras models with random weights, and int8 .tflite files of them.

Four have the shapes of MLPerf Tiny's reference models: depthwise-separable convolutions for keywords, an autoencoder for
machine sounds, a ResNet-8 for 32 x 32 images, and a MobileNet v1 of width 0.25 for 96 x 96 images.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers as L

SHAPES = {
    "ds-cnn": (49, 10, 1),
    "autoencoder": (640,),
    "resnet-8": (32, 32, 3),
    "mobilenet": (96, 96, 3),
    "branches": (12, 12, 3),
}


def ds_cnn() -> keras.Model:
    x = y = keras.Input(SHAPES["ds-cnn"])
    y = L.ReLU()(L.BatchNormalization()(L.Conv2D(64, (10, 4), strides=2, padding="same")(y)))
    for _ in range(4):
        y = L.ReLU()(L.BatchNormalization()(L.DepthwiseConv2D(3, padding="same")(y)))
        y = L.ReLU()(L.BatchNormalization()(L.Conv2D(64, 1)(y)))
    y = L.AveragePooling2D((25, 5))(y)
    return keras.Model(x, L.Dense(12, activation="softmax")(L.Flatten()(y)))


def autoencoder() -> keras.Model:
    x = y = keras.Input(SHAPES["autoencoder"])
    for width in (128, 128, 128, 128, 8, 128, 128, 128, 128):
        y = L.ReLU()(L.BatchNormalization()(L.Dense(width)(y)))
    return keras.Model(x, L.Dense(640)(y))


def resnet_8() -> keras.Model:
    x = keras.Input(SHAPES["resnet-8"])
    y = L.ReLU()(L.BatchNormalization()(L.Conv2D(16, 3, padding="same")(x)))
    for width, stride in ((16, 1), (32, 2), (64, 2)):
        z = L.ReLU()(L.BatchNormalization()(L.Conv2D(width, 3, strides=stride, padding="same")(y)))
        z = L.BatchNormalization()(L.Conv2D(width, 3, padding="same")(z))
        if stride > 1:
            y = L.Conv2D(width, 1, strides=stride, padding="same")(y)
        y = L.ReLU()(L.Add()([y, z]))
    y = L.AveragePooling2D(8)(y)
    return keras.Model(x, L.Dense(10, activation="softmax")(L.Flatten()(y)))


def mobilenet() -> keras.Model:
    x = keras.Input(SHAPES["mobilenet"])
    y = L.ReLU()(L.BatchNormalization()(L.Conv2D(8, 3, strides=2, padding="same")(x)))
    for width, stride in (
        (16, 1),
        (32, 2),
        (32, 1),
        (64, 2),
        (64, 1),
        (128, 2),
        *[(128, 1)] * 5,
        (256, 2),
        (256, 1),
    ):
        y = L.ReLU()(L.BatchNormalization()(L.DepthwiseConv2D(3, strides=stride, padding="same")(y)))
        y = L.ReLU()(L.BatchNormalization()(L.Conv2D(width, 1)(y)))
    y = L.AveragePooling2D(3)(y)
    return keras.Model(x, L.Dense(2, activation="softmax")(L.Flatten()(y)))


def branches() -> keras.Model:
    """Many kinds of layers."""
    x = L.Input(SHAPES["branches"], batch_size=1)  # a dense layer over an image needs to know it
    y = L.LeakyReLU(negative_slope=0.1)(L.Conv2D(8, 3, strides=2, padding="same")(x))
    z = L.Activation("tanh")(L.DepthwiseConv2D(3, padding="same")(L.ZeroPadding2D(1)(y)))
    z = L.Concatenate()([L.MaxPooling2D(2)(z), L.AveragePooling2D(2)(z)])
    z = L.Multiply()([z, L.Dense(16, activation="sigmoid")(L.GlobalAveragePooling2D(keepdims=True)(z))])
    z = L.ReLU(6.0)(L.Conv2D(8, 2, padding="same")(z))
    return keras.Model(x, L.Softmax()(L.Dense(5)(L.Flatten()(z))))


MODELS: dict[str, Callable[[], keras.Model]] = {
    "ds-cnn": ds_cnn,
    "autoencoder": autoencoder,
    "resnet-8": resnet_8,
    "mobilenet": mobilenet,
    "branches": branches,
}


def settled(name: str) -> keras.Model:
    """The model, always with the same weights, with biases that are not 0, and with the statistics that its normalisations
    see."""
    keras.utils.set_random_seed(1)
    model = MODELS[name]()
    rng = np.random.default_rng(1)
    for weights in model.weights:
        if weights.path.endswith(("bias", "beta")):
            weights.assign(rng.normal(0, 0.2, weights.shape))
    normalised = [layer for layer in model.layers if isinstance(layer, L.BatchNormalization)]
    for layer in normalised:
        layer.momentum = 0.0
    if normalised:
        model(rng.normal(0, 1, (32, *SHAPES[name])).astype(np.float32), training=True)
    return model


def int8(name: str, *, end: str = "int8", per_tensor: bool = False) -> bytes:
    """The model as a full-integer .tflite whose input and output are int8 or float32."""
    import tensorflow as tf

    rng = np.random.default_rng(1)

    def representative() -> Any:
        for _ in range(12):
            yield [rng.normal(0, 1, (1, *SHAPES[name])).astype(np.float32)]

    converter = tf.lite.TFLiteConverter.from_keras_model(settled(name))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = representative
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = getattr(tf, end)
    converter._experimental_disable_per_channel_quantization_for_dense_layers = per_tensor
    return bytes(converter.convert())
