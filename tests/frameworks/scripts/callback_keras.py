"""Keras with Backprop's callback."""

import time

import keras
import numpy as np

from backprop.integrations.keras import BackpropCallback


class Slow(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        time.sleep(0.1)  # what a step of a real model takes: it has to be asked in the middle
        print(f"step {int(self.model.optimizer.iterations)}")


keras.utils.set_random_seed(0)
inputs = np.random.default_rng(0).normal(size=(640, 8)).astype("float32")
model = keras.Sequential(
    [keras.layers.Input((8,)), keras.layers.Dense(32, activation="relu"), keras.layers.Dense(1)]
)
model.compile(optimizer=keras.optimizers.Adam(1e-3), loss="mse")
history = model.fit(
    inputs,
    inputs.sum(axis=1, keepdims=True),
    batch_size=16,
    epochs=2,
    verbose=0,
    callbacks=[Slow(), BackpropCallback()],
)
print(f"finished at step {int(model.optimizer.iterations)} with loss {history.history['loss'][-1]!r}")
