"""Numbers in what training scripts print anyway: their shapes, which counter counts, and what hostile output costs."""

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backprop.worker.progress.linear_regex import LinearRegex
from backprop.worker.progress.metric_rules import MAX_RULES, MetricRule, rules_of
from backprop.worker.progress.numbers import MAX_BYTES, PlainReader
from backprop.worker.progress.pattern_parser import BadPattern

BAR = "|███▍      | "
HEADER = "      Epoch    GPU_mem   box_loss   cls_loss  Instances       Size\n"
SHAPES: list[tuple[str, str, tuple[str, int, int | None] | None, float | None, dict[str, float]]] = [
    ("a summary", "loss: 0.12\n", None, 0.12, {"loss": 0.12}),
    ("columns", "step 100 | loss 0.3 | lr 1e-4\n", ("step", 100, None), 0.3, {"lr": 1e-4}),
    ("epoch and total", "epoch 3/10 loss 0.5\n", ("epoch", 3, 10), 0.5, {"epoch": 3.0}),
    ("a header alone", "Epoch 3 of 10\n", ("epoch", 3, 10), None, {}),
    ("brackets", "[10/100] loss: 0.3\n", ("step", 10, 100), 0.3, {}),
    (
        "the dict of a trainer",
        "{'loss': 1.2, 'grad_norm': np.float64(0.4), 'learning_rate': 5e-05, 'epoch': 0.3}\n",
        ("epoch", 0, None),
        1.2,
        {"epoch": 0.3, "grad_norm": 0.4, "learning_rate": 5e-05},
    ),
    (
        "its last one",
        "{'train_runtime': 12.1, 'train_steps_per_second': 3.2, 'train_loss': 0.9, 'epoch': 3.0}\n",
        ("epoch", 3, None),
        0.9,
        {"train_loss": 0.9},
    ),
    (
        "its evaluation",
        "{'eval_loss': 0.7, 'eval_runtime': 2.1, 'epoch': 1.0}\n",
        ("epoch", 1, None),
        None,
        {"eval_loss": 0.7},
    ),
    ("a tensor", "step 4, loss: tensor(0.25, device='cuda:0')\n", ("step", 4, None), 0.25, {}),
    (
        "both losses",
        "step 250: train loss 1.2, val loss 1.3\niter 260: loss 2.3, time 12.00ms, mfu 3.20%\n",
        ("step", 250, None),
        2.3,
        {"train_loss": 1.2, "val_loss": 1.3, "mfu": 3.2},
    ),
    ("a bar", f" 34%{BAR}34/100 [00:03<00:06, 10.2it/s, loss=0.5]\r", ("step", 34, 100), 0.5, {}),
    ("a bar of unknown length", "34it [00:03, 10.2it/s, loss=0.5]\r", ("step", 34, None), 0.5, {}),
    (
        "a bar within an epoch",
        f"Epoch 3:  45%{BAR}45/100 [00:04<00:05, 10.0it/s, v_num=0, train_loss=0.3]\r",
        ("epoch", 3, None),
        0.3,
        {"train_loss": 0.3},
    ),
    (
        "images a second",
        f"Epoch 2/5:  34%{BAR}50/150 [00:10<00:20, 40.1img/s, loss (batch)=0.31]\r",
        ("epoch", 2, 5),
        0.31,
        {},
    ),
    (
        "bars of Keras",
        "Epoch 5/5\n\x1b[1m1563/1563\x1b[0m \x1b[32m━━━━━\x1b[0m \x1b[1m12s\x1b[0m 8ms/step - accuracy: 0.9 - loss: 0.2"
        " - val_loss: 0.4\n313/313 ━━━━━ 1s 2ms/step - accuracy: 0.7 - loss: 0.9\n",
        ("epoch", 5, 5),
        0.2,
        {"accuracy": 0.9, "val_loss": 0.4},
    ),
    (
        "Keras of old",
        "Epoch 2/5\n10/50 [====>....] - ETA: 3s - loss: 0.4\x08\x08\x08",
        ("epoch", 2, 5),
        0.4,
        {},
    ),
    (
        "a table with a bar",
        f"\x1b[34m\x1b[1m{HEADER}\x1b[K        2/5       2.1G      1.105     0.9        24        640: 100%{BAR}10/10"
        " [00:01<00:00,  7.0it/s]\r\n",
        ("epoch", 2, 5),
        None,
        {"box_loss": 1.105, "cls_loss": 0.9},
    ),
    (
        "the same with a newer bar",
        f"{HEADER}  2/5  2.1G  1.105  0.9  24  640: 100% ━━━━ 10/10 3.1it/s 3.2s\n",
        ("epoch", 2, 5),
        None,
        {"box_loss": 1.105},
    ),
    (
        "its summary",
        f"       Class     Images  Instances      Box(P          R      mAP50  mAP50-95): 100%{BAR}2/2 [00:00<00:00]\n"
        "         all        128        929      0.64      0.53       0.6      0.44\n",
        None,
        None,
        {"P": 0.64, "mAP50": 0.6, "mAP50-95": 0.44},
    ),
    (
        "a table of epochs",
        "epoch     train_loss  valid_loss  accuracy  time\n0         0.51        0.45        0.9       00:10\n",
        ("epoch", 0, None),
        0.51,
        {"valid_loss": 0.45, "accuracy": 0.9},
    ),
    (
        "a table of pairs",
        "| rollout/           |          |\n|    total_timesteps | 2048     |\n|    ep_rew_mean     | 21.3     |\n",
        ("step", 2048, None),
        None,
        {"ep_rew_mean": 21.3},
    ),
    (
        "rounds",
        "[10]\ttrain-rmse:0.12\teval-rmse:0.2\n",
        ("step", 10, None),
        None,
        {"train-rmse": 0.12, "eval-rmse": 0.2},
    ),
    (
        "samples of an epoch",
        "Train Epoch: 1 [640/60000 (1%)]\tLoss: 2.29\n\nTest set: Average loss: 0.0274, Accuracy: 9870/10000 (99%)\n",
        ("epoch", 1, None),
        2.29,
        {"val_loss": 0.0274},
    ),
    (
        "meters",
        "Epoch: [7][  10/5005]\tTime  0.3 ( 0.5)\tLoss 6.9e+00 (7.0e+00)\tAcc@1   0.78 (  0.5)\n"
        "Test: [ 10/196]\tTime 0.1 ( 0.1)\tLoss 5.0e+00 (5.1e+00)\n",
        ("epoch", 7, None),
        6.9,
        {"acc@1": 0.78, "val_loss": 5.0},
    ),
    (
        "an epoch without its word",
        "Train: 3 [  50/1251 (  4%)]  Loss: 6.93 (6.94)  320/s  LR: 1.000e-05\n",
        ("epoch", 3, None),
        6.93,
        {"lr": 1e-05},
    ),
    (
        "phases",
        "11/27 12:00:00 - mmengine - INFO - Iter(train) [  100/80000]  lr: 1e-2  loss: 3.2\n",
        ("step", 100, 80000),
        3.2,
        {"lr": 0.01},
    ),
    (
        "events of a library",
        "[11/27 12:00:00 d2.utils.events]:  eta: 0:10:00  iter: 19  total_loss: 1.9  max_mem: 1000M\n",
        ("step", 19, None),
        1.9,
        {"total_loss": 1.9},
    ),
    (
        "updates",
        "2021-01-01 10:00:00 | INFO | train_inner | epoch 001:     20 / 100 loss=9.5, num_updates=120\n",
        ("step", 120, None),
        9.5,
        {},
    ),
    (
        "pipes",
        " iteration      100/  500000 | consumed samples:         1600 | lm loss: 9.5E+00 | grad norm: 1.2 |\n",
        ("step", 100, 500000),
        9.5,
        {"lm_loss": 9.5, "grad_norm": 1.2},
    ),
    ("batches beside epochs", "Epoch [1/5], Step [100/600], Loss: 0.3\n", ("epoch", 1, 5), 0.3, {}),
    ("a step beside an epoch", "epoch 1 step 190/400  loss 2.08\n", ("step", 190, 400), 2.08, {}),
    ("thousands", "step 12,000 of 50,000 loss 0.3, 100, 2\n", ("step", 12000, 50000), 0.3, {}),
    ("a time", "2026-11-27 10:00:00,123 - INFO - __main__ - step 10 loss 0.4\n", ("step", 10, None), 0.4, {}),
    ("a level", "INFO:root:step 11, loss=0.3\n", ("step", 11, None), 0.3, {}),
    (
        "a caller",
        "2026-11-27 10:00:00.000 | INFO     | __main__:train:42 - step 14 loss 0.05\n",
        ("step", 14, None),
        0.05,
        {},
    ),
    ("ranks", "[rank0]: step 12 loss 0.2\n[rank1]: step 11 loss 0.9\n", ("step", 12, None), 0.2, {}),
    ("a label", "0: step 13 loss 0.1\n", ("step", 13, None), 0.1, {}),
    (
        "colours",
        "\x1b[32mstep\x1b[0m \x1b[1m15\x1b[0m loss \x1b[31m0.2\x1b[0m\n",
        ("step", 15, None),
        0.2,
        {},
    ),
    (
        "parts of a line",
        "Epoch 3 | Train | loss 0.3 | Val | loss 0.4 acc 0.8\n",
        ("epoch", 3, None),
        0.3,
        {"val_loss": 0.4, "val_acc": 0.8},
    ),
    ("JSON of its own", '{"epoch": 3, "train_loss": 0.5}\n', ("epoch", 3, None), 0.5, {}),
]


@pytest.mark.parametrize(
    ("text", "place", "loss", "values"), [shape[1:] for shape in SHAPES], ids=[shape[0] for shape in SHAPES]
)
def test_what_scripts_print(
    text: str, place: tuple[str, int, int | None] | None, loss: float | None, values: dict[str, float]
) -> None:
    reader = PlainReader()
    found, done = reader.take(text.encode())
    trace = reader.trace
    assert (None if trace is None else (trace.unit, trace.last, trace.total)) == place
    assert found.loss == loss
    assert {name: value for name, (_, value) in found.values.items() if name in values} == values
    assert done == len(text.encode())


@pytest.mark.parametrize(
    "text",
    [
        "Namespace(lr=0.1, epochs=10, batch_size=32, loss='ce', step=3)\n",
        "batch_size: 32\nlr: 0.001\nseed=4\nmax_steps: 1000\n",
        "engine/trainer: amp=True, batch=4, box=7.5, cfg=None, epochs=24, iou=0.7, plots=False, workers=0\n",
        "batch: 16\nlr0: 0.01\n",
        "Resuming from epoch 5, loss 0.3\n",
        "Saving checkpoint to out/epoch=3-step=100.ckpt\n",
        "best epoch: 3, val loss 0.2\nEarly stopping at epoch 7\nWarmup steps: 100\n",
        "found 3 GPUs, using 8 workers\nPyTorch 2.6.0 on 2026-11-27\n",
        "[1/3] c++ -O2 kernel.cpp\n[2/3] ld kernel.so\n",
        f"Map: 100%{BAR}1000/1000 [00:01<00:00, 900.1 examples/s]\r",
        f"Validation: 40%{BAR}4/10 [00:01<00:00, 9.1it/s]\r",
        '{"step": 3, "loss": 0.7}\n',
        "step 12",
    ],
)
def test_what_is_no_progress(text: str) -> None:
    reader = PlainReader()
    found, _ = reader.take(text.encode())
    assert (reader.trace, found.loss) == (None, None)
    assert not found.values or "val" in text


def last(*chunks: str) -> tuple[str | None, int | None, bool] | None:
    reader = PlainReader()
    for chunk in chunks:
        reader.take(chunk.encode())
    return (reader.trace.unit, reader.trace.last, reader.trace.fell) if reader.trace is not None else None


def bar(value: int, total: int, label: str = "") -> str:
    return f"\r{label} 10%{BAR}{value}/{total} [00:01<00:09, 9.0it/s]\r"


@pytest.mark.parametrize(
    ("chunks", "place"),
    [
        (("step 1 loss 1\n", "step 2 loss 1\n"), ("step", 2, False)),
        (("step 1 loss 1\n", "step 900 loss 1\n", "step 1 loss 1\n"), ("step", 1, True)),
        (("epoch 1 step 90 loss 1\n", "epoch 2 step 10 loss 1\n"), ("epoch", 2, False)),
        (("epoch 1\nstep 90 loss 1\n", "epoch 2\nstep 10 loss 1\n", "step 20 loss 1\n"), ("epoch", 2, False)),
        (("epoch 1 step 90 loss 1\n", "epoch 2 step 110 loss 1\n"), ("step", 110, False)),
        (("Epoch 1/5\n", bar(3, 90)), ("epoch", 1, False)),
        ((bar(3, 90), bar(4, 90)), ("step", 4, False)),
        (
            (bar(3, 90), bar(9, 10), bar(4, 90), bar(2, 10)),
            ("step", 4, False),
        ),  # a nested evaluation without a name
        ((bar(90, 90), bar(3, 500), bar(4, 500)), ("step", 4, False)),  # what was prepared before
        ((bar(80, 90), bar(3, 90)), None),  # it begins again with each epoch
        (("{'loss': 1.0, 'epoch': 0.1}\n", bar(3, 900), "{'loss': 1.0, 'epoch': 0.2}\n"), ("step", 3, False)),
        (("epoch 3 global_step 400 loss 1\n", "step 7 loss 1\n"), ("step", 400, False)),
        (("step 7 loss 1\n", "val: step 3 loss 1\n"), ("step", 7, False)),
        (("Epoch 1/3\n", "Epoch 3/3\n", "Epoch 1/3\n"), ("epoch", 1, True)),
    ],
)
def test_which_counter_is_the_place_in_the_training(
    chunks: tuple[str, ...], place: tuple[str, int, bool] | None
) -> None:
    assert last(*chunks) == place


def test_a_line_counts_once_it_is_whole() -> None:
    reader = PlainReader()
    assert reader.take(b"step 12")[1] == 0
    found, done = reader.take(b"step 1200 loss 0.5\nstep 13")
    assert (found.loss, found.values, done) == (0.5, {"loss": (1200, 0.5)}, 19)
    reader.take(b"step 1300", whole=True)
    assert reader.trace is not None
    assert reader.trace.last == 1300


def test_the_source_in_a_traceback_is_no_output() -> None:
    reader = PlainReader()
    text = (
        b"step 3 loss 0.5\nTraceback (most recent call last):\n"
        b'  File "/p/train.py", line 66, in save\n    return 1 / (step - step)\n           ~~^~~~~~~~\n'
        b'  File "/p/train.py", line 7, in f\n    loss = 9.0 + reward * 2\nError: oh\nacc: 0.5\n'
    )
    cut = text.index(b"    return")
    first, done = reader.take(text[:cut])
    second, _ = reader.take(text[done:], whole=True)
    assert first.values | second.values == {"loss": (3, 0.5), "acc": (3, 0.5)}


@given(
    st.lists(st.binary(max_size=400) | st.sampled_from([shape[1].encode() for shape in SHAPES]), max_size=12)
)
@settings(deadline=None, max_examples=60)
def test_any_bytes(chunks: list[bytes]) -> None:
    reader = PlainReader(rules_of(["own=x([0-9.]+)"]))
    for chunk in chunks:
        found, done = reader.take(chunk)
        assert 0 <= done <= len(chunk)
        assert all(isinstance(value, float) for _, value in found.values.values())
    reader.take(b"".join(chunks), whole=True)


HOSTILE = [
    b"a" * MAX_BYTES, b"1 " * MAX_BYTES, b"loss:1 " * MAX_BYTES, b"epoch 1 " * MAX_BYTES, b"a-" * MAX_BYTES,
    (b"1%|" * 1365 + b"\n") * 16, b'{"' * MAX_BYTES, b"\x1b[" * MAX_BYTES, b"1\n" * MAX_BYTES, b"INFO - " * MAX_BYTES,
    (b"9" * 4095 + b"\n") * 16, b"((" * MAX_BYTES, b"1it [" * MAX_BYTES, b"map50-" * MAX_BYTES, b"- | " * MAX_BYTES,
]  # fmt: skip


@pytest.mark.parametrize("data", HOSTILE, ids=lambda data: repr(data[:8]))
def test_a_hostile_flood_costs_little(data: bytes) -> None:
    reader = PlainReader()
    begun_s = time.process_time()
    for _ in range(10):
        reader.take(data, whole=True)
    assert time.process_time() - begun_s < 1.0


PIECES = st.sampled_from(
    [*"ab1.", r"\d", r"\w", r"\s", r"\b", "[ab]", "[^a]", "[a-c1]", "^", "$", r"\.", "a|b"]
)
PATTERNS = st.recursive(
    PIECES,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "*?", "{1,2}", "{2}"])).map(
            # How often an empty match is repeated is where engines differ.
            lambda pair: f"(?:{pair[0]}){pair[1] if re.fullmatch(pair[0], '') is None else ''}"
        ),
        inner.map(lambda text: f"(?:{text})"),
    ),
    max_leaves=8,
)


@given(PATTERNS, PATTERNS, st.text("ab1. ", max_size=12))
@settings(deadline=None, max_examples=150)
def test_a_pattern_finds_what_re_finds(before: str, group: str, text: str) -> None:
    pattern = f"(?:{before})({group})"
    match = re.search(pattern, text)
    assert LinearRegex(pattern).search(text, 10**6)[0] == (match[1] if match is not None else None)


@pytest.mark.parametrize("pattern", [r"(a+)+$", r"(a|a)*b", r"(.*)(.*)(.*)(.*)x", r"(\w+\s?)+!"])
def test_a_pattern_that_re_would_ponder_for_years(pattern: str) -> None:
    reader = PlainReader(rules_of([f"own{number}={pattern}" for number in range(MAX_RULES)]))
    begun_s = time.process_time()
    reader.take((b"a" * 1000 + b" loss 1\n") * 64)
    assert time.process_time() - begun_s < 1.0
    begun_s = time.process_time()
    MetricRule(f"own={pattern}").find("a" * 4096, 10**6)
    assert time.process_time() - begun_s < 1.0


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ("val_acc", "expected NAME=REGEX"),
        ("=x", "no name of a metric"),
        ("a b=x", "no name of a metric"),
        ("own=", "expected NAME=REGEX"),
        ("own=(", "unterminated"),
        ("own=(?=x)", "lookarounds"),
        (r"own=(a)\1", "can't be matched"),
        ("own=(?:a{900}){900}", "too long"),
        ("own=" + "x" * 300, "longer than 200"),
    ],
)
def test_a_pattern_that_is_refused_is_refused_with_the_reason(rule: str, why: str) -> None:
    with pytest.raises(BadPattern, match=why):
        rules_of([rule])


def test_too_many_patterns() -> None:
    with pytest.raises(BadPattern, match=f"at most {MAX_RULES}"):
        rules_of(["a=b"] * (MAX_RULES + 1))


def test_own_patterns_beat_what_is_found_without_them() -> None:
    reader = PlainReader(
        rules_of(["acc=top accuracy is ([0-9.]+)", "step=(?i)STEP#(\\d+)", "loss=cost ([0-9.e-]+)"])
    )
    found, _ = reader.take(b"epoch 3/10 step#42: top accuracy is 0.9, cost 2e-3, loss 7\n")
    assert reader.trace is not None
    assert (reader.trace.unit, reader.trace.last, found.loss) == ("step", 42, 0.002)
    assert found.values["acc"] == (42, 0.9)
