"""Tells the words of training apart: counters, measures, held-out data, and what is none of them, such as times."""

import re
from typing import Final

STEPS: Final = {"step", "iter", "iteration", "itr", "update", "timestep"}
GLOBAL: Final = {
    "global_step",
    "num_updates",
    "total_timesteps",
    "timesteps_total",
    "num_env_steps",
    "train_step",
}
BATCHES: Final = {"batch", "minibatch"}
COUNTERS: Final = STEPS | GLOBAL | BATCHES | {"epoch"}
BESIDE: Final = {
    "train",
    "training",
    "current",
    "global",
    "start",
    "starting",
    "end",
    "finished",
    "completed",
    "at",
}
"""What may stand before a counter's name: the best, total or warm-up step is another thing."""
_HELD_OUT: Final = {"val", "valid", "validation", "validate", "validating", "eval", "evaluation", "evaluating"} | {
    "test", "testing", "dev",
}  # fmt: skip
PLAIN: Final = {
    "average",
    "avg",
    "mean",
    "running",
    "current",
    "the",
    "epoch",
    "batch",
    "step",
    "final",
    "total",
}
"""Before a measure's name these are worth no name of their own."""
_MEASURES: Final = re.compile(
    r"(?:.*[_/ .-])?(?:loss|losses|acc|accuracy|acc@?\d|top-?[15]|ppl|perplexity|reward|return|score|f1|auc|auroc"
    r"|map\d*|map50-95|miou|iou|bleu|rouge\w?|wer|cer|mse|mae|rmse|psnr|ssim|fid|dice|precision|recall|bpc|bpb|elbo|kl|nll|err"
    r"|error|logloss|l1|l2|r2)(?:_(?:mean|avg|total|epoch|step))?",
    re.IGNORECASE,
)
SPACED: Final = {"lr", "grad_norm", "gnorm", "norm", "entropy", "mfu", "learning_rate"}
"""Beside the measures: named by a space alone, but no proof of progress."""
_NOISE: Final = re.compile(
    r"(?:time|eta|elapsed\w*|data|data_time|batch_time|iter_time|v_num|seed|rank|gpu|gpus|mem|memory|max_mem|gpu_mem|pid|size"
    r"|images?|instances|workers|world_size|dt|ms|s|it|sec|secs|seconds|min|batch_size|speed|throughput|device|version|at"
    r"|line|id|port|of|fps|time_elapsed|iterations|epochs|steps|num_\w+|n_\w+|max_\w+|total_(?!loss)\w+|\w*runtime|\w*_time"
    r"|\w*per_second|\w*_ms|\w*_seconds|start_\w+|last_\w+|best_\w+|\w*(?:_size|_steps|_epochs|samples|tokens))",
    re.IGNORECASE,
)
ASIDE: Final = re.compile(
    r"\W{0,8}(?:resum|restor|load|sav|writ|wrote|best|early|stopp|download|checkpoint|warm|config|hparam|args|namespace|usage"
    r"|traceback|error|warning|max|num|will|using|file |skipp|total (?!loss))\w*",
    re.IGNORECASE,
)


def is_held_out(word: str) -> bool:
    """Return whether a word names data that nothing is learned from."""
    return word.lower() in _HELD_OUT


def is_noise(name: str) -> bool:
    """Return whether a name is that of a setting, a time or an amount of memory rather than of a result."""
    return _NOISE.fullmatch(name) is not None


def is_measure(name: str) -> bool:
    """Return whether a name is that of a loss or of another usual measure."""
    return _MEASURES.fullmatch(name) is not None
