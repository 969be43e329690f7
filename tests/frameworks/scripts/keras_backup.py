"""Keras with BackupAndRestore: the same command again goes on where the last one was."""

import argparse
import time

import keras
import numpy as np


class Pace(keras.callbacks.Callback):
    def __init__(self, step_seconds):
        super().__init__()
        self.step_seconds = step_seconds

    def on_train_batch_end(self, batch, logs=None):
        time.sleep(
            self.step_seconds
        )  # what a step of a real model takes: the chain has to be cut in its middle


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--backup-dir", default="backup")
    parser.add_argument("--step-seconds", type=float, default=0.2)
    args = parser.parse_args()

    keras.utils.set_random_seed(0)
    inputs = np.random.default_rng(0).normal(size=(320, 8)).astype("float32")
    targets = inputs.sum(axis=1, keepdims=True)
    model = keras.Sequential(
        [keras.layers.Input((8,)), keras.layers.Dense(32, activation="relu"), keras.layers.Dense(1)]
    )
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss="mse")
    model.fit(
        inputs,
        targets,
        batch_size=16,
        epochs=args.epochs,
        shuffle=False,
        verbose=2,
        callbacks=[keras.callbacks.BackupAndRestore(args.backup_dir), Pace(args.step_seconds)],
    )
    model.save("model.keras")
    loss = model.evaluate(inputs, targets, verbose=0)
    print(f"finished at step {int(model.optimizer.iterations)} with loss {loss!r}")


if __name__ == "__main__":
    main()
