"""The recipes of frameworks that bring a trainer of their own. What each does was read in its source, named below.

transformers: trainer.py, trainer_utils.py, trainer_jit_checkpoint.py · lightning: pytorch/trainer/connectors/
{checkpoint,signal}_connector.py, callbacks/model_checkpoint.py · keras: callbacks/backup_and_restore.py · ultralytics:
engine/{model,trainer}.py, cfg/__init__.py · mmengine: hooks/checkpoint_hook.py · detectron2: engine/defaults.py ·
fairseq: checkpoint_utils.py · composer: trainer.py
"""

import glob
import json
from pathlib import PurePath
from typing import Final

from backprop.scheduler.recipes.predicates import (
    calls,
    command,
    computes,
    given,
    imports,
    mentions,
    passes,
    strings,
    uses,
    word,
)
from backprop.scheduler.recipes.recipe import CheckpointLocation, OnSignal, Recipe, Way
from backprop.scheduler.recipes.source_reader import SourceReader

SETTINGS_LIMIT_BYTES: Final = 64 << 10


def ultralytics_runs(reader: SourceReader) -> tuple[str, ...]:
    """Return the folder of Ultralytics' runs. Its settings file fixes it at the first use, wherever that was."""
    base = reader.expand_user(reader.environment.get("YOLO_CONFIG_DIR") or "~/.config/Ultralytics")
    try:
        folder = json.loads(reader.read(PurePath(base, "settings.json"), SETTINGS_LIMIT_BYTES)).get(
            "runs_dir"
        )
    except (ValueError, AttributeError):
        return ()
    usable = isinstance(folder, str) and folder.startswith("/") and "\0" not in folder
    return (glob.escape(folder),) if usable else ()


HUGGINGFACE: Final = Recipe(
    name="huggingface",
    title="Hugging Face Trainer, TRL",
    known_by=uses(
        "transformers.*Trainer",
        "transformers.*TrainingArguments",
        "trl.*Trainer",
        "sentence_transformers.*Trainer",
    )
    & calls("train"),
    places=(CheckpointLocation(("checkpoint-*",), ("output_dir", "TrainingArguments()")),),
    anywhere=("checkpoint-*",),
    # Written last into the directory, which is filled in place (huggingface/transformers#35782).
    # While one is being deleted, that file may outlive the others.
    needs=("trainer_state.json", "*optim*"),
    folders=True,
    ways=(
        Way("option", names=("resume_from_checkpoint",)),
        Way(
            "append",
            ("--resume_from_checkpoint", "{checkpoint}"),
            when=uses("transformers.*HfArgumentParser", "trl.*TrlParser")
            & mentions("resume_from_checkpoint"),
        ),
        Way(
            "rerun",
            when=(mentions("get_last_checkpoint") | computes("resume_from_checkpoint"))
            & ~(given("overwrite_output_dir") | passes("overwrite_output_dir", True)),
        ),
    ),
    step=r"checkpoint-(\d+)$",
    on_signal=(
        OnSignal(given("enable_jit_checkpoint") | passes("enable_jit_checkpoint", True), signal="TERM"),
    ),
    grace_s=60,
    integration="transformers",
    cannot="its text passes no resume_from_checkpoint to train();"
    " use trainer.train(resume_from_checkpoint=os.environ.get('BACKPROP_RESUME_FROM'))",
    limits="`resume_from_checkpoint=True` alone fails in the first segment, where there is none yet. DeepSpeed's"
    " directories are recognised by their `trainer_state.json` too.",
)

_TRAINER: Final = uses(
    "lightning.*Trainer",
    "pytorch_lightning.*Trainer",
    "lightning.*LightningCLI",
    "pytorch_lightning.*LightningCLI",
)
_CLI: Final = uses("lightning.*LightningCLI", "pytorch_lightning.*LightningCLI")

LIGHTNING: Final = Recipe(
    name="lightning",
    title="Lightning, LightningCLI",
    known_by=(_TRAINER & calls("fit")) | (_CLI & word("fit")),
    places=(
        CheckpointLocation(
            (
                "lightning_logs/version_*/checkpoints/*.ckpt",
                "*/version_*/checkpoints/*.ckpt",
                "*/*/checkpoints/*.ckpt",
                "checkpoints/*.ckpt",
            ),
            ("default_root_dir", "save_dir"),
            default="",
        ),
        CheckpointLocation(("*.ckpt",), ("dirpath",)),
    ),
    ways=(
        Way("append", ("--ckpt_path", "{checkpoint}"), when=_CLI & word("fit")),
        Way("option", names=("ckpt_path", "resume_from_checkpoint")),
        Way("rerun", when=passes("ckpt_path", "last") & mentions("dirpath")),
    ),
    step=r"step=(\d+)",
    # Between two batches on SIGTERM; SIGINT interrupts one in its middle.
    stop_signal="TERM",
    on_signal=(OnSignal(mentions("OnExceptionCheckpoint") | passes("save_on_exception", True)),),
    grace_s=60,
    integration="lightning",
    cannot="its text passes no ckpt_path to fit();"
    " use trainer.fit(…, ckpt_path=os.environ.get('BACKPROP_RESUME_FROM'))",
    limits="Each segment writes into a `version_N` of its own; all of them are scanned. `ckpt_path='last'` finds its"
    " file only if `dirpath` fixes the folder.",
)

KERAS: Final = Recipe(
    name="keras",
    title="Keras BackupAndRestore",
    known_by=uses(
        "keras.*BackupAndRestore", "tensorflow.keras.*BackupAndRestore", "tf_keras.*BackupAndRestore"
    ),
    places=(CheckpointLocation(("",), ("backup_dir", "BackupAndRestore()")),),
    needs=("*.weights.h5", "training_metadata.json"),
    in_place=True,
    folders=True,
    ways=(Way("rerun"),),
    limits="Keras 3. It deletes its folder when `fit` ends. It fails on a torn checkpoint, unless its"
    " `double_checkpoint` is on.",
)

KERAS_FIT: Final = Recipe(
    name="keras-fit",
    title="Keras fit",
    known_by=uses(
        "keras.*Model", "keras.*Sequential", "tensorflow.keras.*Model", "tensorflow.keras.*Sequential"
    )
    & calls("fit"),
    grace_s=60,
    integration="keras",
    cannot="its text has no BackupAndRestore among the callbacks of fit()",
    limits="Keras 3.",
)

ULTRALYTICS: Final = Recipe(
    name="ultralytics",
    title="Ultralytics YOLO",
    entries=("yolo",),
    known_by=(command("yolo") & (word("train", "mode=train")))
    | (uses("ultralytics.YOLO", "ultralytics.RTDETR", "ultralytics.*.YOLO") & calls("train")),
    places=(
        CheckpointLocation(("<name>/weights/last.pt", "<name>/weights/epoch*.pt"), ("project",)),
        CheckpointLocation(
            ("*/<name>/weights/last.pt", "*/<name>/weights/epoch*.pt", "*/*/<name>/weights/last.pt"),
            default="runs",
            roots=ultralytics_runs,
        ),
    ),
    in_place=True,
    ways=(
        # It takes resume=True with the model to resume; resume=PATH was taken for True by many versions.
        Way("append", ("model={checkpoint}", "resume=True"), when=command("yolo")),
        Way("option", names=("resume",)),
    ),
    step=r"epoch(\d+)\.pt$",
    integration="ultralytics",
    cannot="its text has no option to resume with; the command (yolo train …) has one",
    limits="After its regular end it removes the optimizer from `last.pt`: a segment started then reports that there is"
    " nothing to resume.",
)

MMENGINE: Final = Recipe(
    name="mmengine",
    title="MMEngine: MMDetection, MMSegmentation and the like",
    known_by=uses(
        "mmengine.*Runner",
        "mmengine.*Runner.from_cfg",
        "mmengine.registry.RUNNERS",
        "mm*.apis.train_detector",
        "mm*.apis.train_model",
        "mm*.apis.train_segmentor",
    ),
    places=(CheckpointLocation(("epoch_*.pth", "iter_*.pth"), ("work_dir",), default="work_dirs/*"),),
    anywhere=("epoch_*.pth", "iter_*.pth"),
    ways=(Way("option", names=("resume_from", "resume")), Way("rerun", when=passes("resume", True, "auto"))),
    step=r"(?:epoch|iter)_(\d+)\.pth$",
    cannot="its text declares no --resume",
    advice=(
        (
            imports("mmengine"),
            "MMEngine 0.10 on PyTorch 2.6 or newer cannot load what it saved without --env"
            " TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1",
        ),
    ),
    limits="With a `--resume` that takes no value it follows its own pointer file, `last_checkpoint`.",
)

DETECTRON2: Final = Recipe(
    name="detectron2",
    title="Detectron2",
    known_by=uses("detectron2.engine.*Trainer", "detectron2.engine.*launch"),
    places=(CheckpointLocation(("model_*.pth",), ("OUTPUT_DIR", "output_dir"), default="output"),),
    anywhere=("model_*.pth",),
    ways=(
        # Before the others: KEY VALUE pairs take everything that stands behind them.
        Way("append", ("--resume",), when=uses("detectron2.engine.*default_argument_parser"), first=True),
        Way("option", names=("resume",)),
        Way("rerun", when=passes("resume", True)),
    ),
    step=r"model_(\d+)\.pth$",
    cannot="its text neither uses default_argument_parser nor declares --resume",
    limits="It follows its own pointer file, `last_checkpoint`.",
)

FAIRSEQ: Final = Recipe(
    name="fairseq",
    title="fairseq",
    entries=("fairseq-train", "fairseq_cli.train"),
    known_by=command("fairseq-train", "fairseq_cli.train"),
    places=(CheckpointLocation(("checkpoint*.pt",), ("save_dir",), default="checkpoints"),),
    ways=(
        Way(
            "append",
            ("--restore-file", "{checkpoint}"),
            when=given("restore_file") & ~given("reset_optimizer", "reset_dataloader", "reset_meters"),
        ),
        Way("rerun", when=~given("restore_file")),
    ),
    step=r"checkpoint_\d+_(\d+)\.pt$",
    cannot="--restore-file with --reset-… starts over each time",
    limits="`fairseq-hydra-train` is not recognised: it creates a new folder each time.",
)

COMPOSER: Final = Recipe(
    name="composer",
    title="Composer",
    known_by=uses("composer.Trainer", "composer.*.Trainer") & calls("fit"),
    places=(CheckpointLocation(("*rank*.pt",), ("save_folder",)),),
    anywhere=("ep*-ba*-rank*.pt",),
    ways=(
        Way("rerun", when=passes("autoresume", True) | given("autoresume")),
        Way("option", names=("load_path",)),
    ),
    step=r"-ba(\d+)-",
    cannot="its text sets no autoresume=True, with a fixed run_name",
    limits="Composer requires a fixed `run_name` for autoresume.",
)

TIMM: Final = Recipe(
    name="timm",
    title="timm train.py",
    known_by=uses("timm.*CheckpointSaver"),
    places=(
        CheckpointLocation(
            ("*/last.pth.tar", "*/checkpoint-*.pth.tar", "*/recovery-*.pth.tar"),
            ("output",),
            default="output/train",
        ),
    ),
    ways=(Way("option", names=("resume",)),),
    step=r"checkpoint-(\d+)\.pth\.tar$",
    cannot="its text declares no --resume",
    limits="Without `--experiment` each segment gets a folder with the time in its name; all are scanned. On SIGINT it"
    " exits 0 in the middle of an epoch and saves nothing.",
)

NANOGPT: Final = Recipe(
    name="nanogpt",
    title="nanoGPT and its descendants",
    known_by=mentions("init_from") & strings("resume", "ckpt.pt"),
    places=(CheckpointLocation(("ckpt.pt",), ("out_dir",), default="out"),),
    anywhere=("ckpt.pt",),
    in_place=True,
    # Only in this form, and the last one counts (configurator.py).
    ways=(Way("append", ("--init_from=resume",)),),
    limits="It reads `ckpt.pt` in its `out_dir`, whatever path it is given.",
)
