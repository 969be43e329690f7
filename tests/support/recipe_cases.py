"""A case of each recipe: a command, its script, what its trainer leaves behind, and how it is resumed."""

from dataclasses import dataclass, field

from tests.support import training_scripts as trainers


@dataclass(frozen=True)
class Case:
    """`words`: the command, with train.py for the script. `left`: files that its trainer left behind; `found`: the
    checkpoints among them. `resumed`: the command on a resume from CHECKPOINT, from its second word on."""

    recipe: str
    text: str
    words: str
    found: tuple[str, ...]
    resumed: str
    left: tuple[str, ...] = ()
    extra: dict[str, object] = field(default_factory=dict)


OWN_OPTION = """
import argparse, pickle
parser = argparse.ArgumentParser()
parser.add_argument("--load-checkpoint", help="checkpoint to continue from")
args = parser.parse_args()
step = pickle.load(open(args.load_checkpoint, "rb"))["step"] if args.load_checkpoint else 0
pickle.dump({"step": step}, open("out/state.pkl", "wb"))
"""
HF_FILES = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json")
CASES = {
    "a script of no framework": Case(
        "own-option", OWN_OPTION, "python train.py", (), "train.py --load-checkpoint CHECKPOINT"
    ),
    "huggingface example script": Case(
        "huggingface",
        trainers.HF_TRAINER,
        "python train.py --output_dir out --max_steps 100",
        ("out/checkpoint-20", "out/checkpoint-40"),
        "train.py --output_dir out --max_steps 100 --resume_from_checkpoint CHECKPOINT",
        (
            *(f"out/checkpoint-{step}/{name}" for step in (20, 40) for name in HF_FILES),
            "out/model.safetensors",
        ),
        {"needs": ("trainer_state.json", "*optim*"), "stop_signal": None, "saves_on_signal": False},
    ),
    "huggingface with its own saving on SIGTERM": Case(
        "huggingface",
        trainers.HF_TRAINER,
        "python train.py --output_dir=out --enable_jit_checkpoint",
        ("out/checkpoint-20",),
        "train.py --output_dir=out --enable_jit_checkpoint --resume_from_checkpoint CHECKPOINT",
        ("out/checkpoint-20/trainer_state.json",),
        {"stop_signal": "TERM", "saves_on_signal": True, "grace_s": 60},
    ),
    "huggingface default folder": Case(
        "huggingface",
        trainers.HF_TRAINER,
        "python train.py",
        ("trainer_output/checkpoint-5",),
        "train.py --resume_from_checkpoint CHECKPOINT",
        ("trainer_output/checkpoint-5/trainer_state.json",),
    ),
    "huggingface finds its last checkpoint": Case(
        "huggingface",
        trainers.HF_LAST_CHECKPOINT,
        "python train.py",
        ("runs/mt/checkpoint-500",),
        "train.py",
        ("runs/mt/checkpoint-500/trainer_state.json", "other/checkpoint-1/trainer_state.json"),
        {"resumes": "rerun"},
    ),
    "trl without a way": Case(
        "huggingface",
        trainers.TRL_SFT,
        "accelerate launch --num_processes 2 train.py",
        (),
        "launch --num_processes 2 train.py",
        ("sft-out/checkpoint-50/trainer_state.json",),
        {"resumes": "none", "grace_s": 60, "integration": "transformers", "globs": ()},
    ),
    "diffusers": Case(
        "accelerate",
        trainers.DIFFUSERS,
        "accelerate launch train.py --resolution=64",
        ("ddpm-model-64/checkpoint-500",),
        "launch train.py --resolution=64 --resume_from_checkpoint CHECKPOINT",
        ("ddpm-model-64/checkpoint-500/optimizer.bin", "ddpm-model-64/logs/x"),
        {"needs": ("random_states_0.pkl",), "note": ""},
    ),
    "accelerate example": Case(
        "accelerate",
        trainers.ACCELERATE,
        "python train.py --output_dir out --checkpointing_steps 20",
        ("out/step_20",),
        "train.py --output_dir out --checkpointing_steps 20 --resume_from_checkpoint CHECKPOINT",
        ("out/step_20/random_states_0.pkl",),
        {"note": ""},
    ),
    "accelerate example that saves nothing": Case(
        "accelerate",
        trainers.ACCELERATE,
        "python train.py",
        (),
        "train.py --resume_from_checkpoint CHECKPOINT",
        extra={"note": "--checkpointing_steps is not given, so it will save no checkpoint"},
    ),
    "lightning command line": Case(
        "lightning",
        trainers.LIGHTNING_CLI,
        "python train.py fit --trainer.max_epochs 3",
        (
            "lightning_logs/version_0/checkpoints/epoch=0-step=64.ckpt",
            "lightning_logs/version_1/checkpoints/last.ckpt",
        ),
        "train.py fit --trainer.max_epochs 3 --ckpt_path CHECKPOINT",
        ("lightning_logs/version_0/metrics.csv", "lightning_logs/version_0/config.yaml"),
        {"stop_signal": "TERM"},
    ),
    "lightning script": Case(
        "lightning",
        trainers.LIGHTNING_SCRIPT,
        "python train.py",
        ("weights/last.ckpt",),
        "train.py --ckpt_path CHECKPOINT",
        extra={"saves_on_signal": False},
    ),
    "lightning without a way": Case(
        "lightning",
        trainers.LIGHTNING_NO_WAY,
        "python train.py",
        (),
        "train.py",
        extra={
            "resumes": "none",
            "integration": "lightning",
            "globs": (),
            "grace_s": 60,
            "stop_signal": None,
        },
    ),
    "lightning that saves when it is interrupted": Case(
        "lightning",
        trainers.LIGHTNING_SCRIPT.replace("save_last=True", "save_on_exception=True"),
        "python train.py",
        ("weights/epoch=0-step=3.ckpt",),
        "train.py --ckpt_path CHECKPOINT",
        extra={"saves_on_signal": True, "grace_s": 60, "stop_signal": "TERM"},
    ),
    "keras": Case(
        "keras",
        trainers.KERAS.replace("/tmp_of_run/", ""),
        "python train.py",
        ("backup",),
        "train.py",
        ("backup/latest.weights.h5", "backup/training_metadata.json"),
        {"resumes": "rerun", "needs": ("*.weights.h5", "training_metadata.json"), "in_place": True},
    ),
    "keras without a way": Case(
        "keras-fit",
        trainers.KERAS_FIT,
        "python train.py",
        (),
        "train.py",
        extra={"resumes": "none", "integration": "keras", "globs": (), "grace_s": 60},
    ),
    "tf.keras": Case(
        "keras", trainers.KERAS_TF, "python train.py", ("backup",), "train.py", ("backup/latest.weights.h5",)
    ),
    "nanogpt": Case(
        "nanogpt",
        trainers.NANOGPT,
        "python train.py --out_dir=out-a --init_from=scratch",
        ("out-a/ckpt.pt",),
        "train.py --out_dir=out-a --init_from=scratch --init_from=resume",
        ("out/ckpt.pt",),
        {"in_place": True},
    ),
    "nanogpt with a configuration file": Case(
        "nanogpt",
        trainers.NANOGPT,
        "torchrun --standalone --nproc_per_node=4 train.py config/train_shakespeare_char.py",
        ("out-shakespeare-char/ckpt.pt",),
        "--standalone --nproc_per_node=4 train.py config/train_shakespeare_char.py --init_from=resume",
        ("config/train_shakespeare_char.py",),
        {"grace_s": 40},
    ),
    "timm": Case(
        "timm",
        trainers.TIMM,
        "python train.py /data --model resnet50",
        (
            "output/train/20261121-resnet50/last.pth.tar",
            "output/train/20261121-resnet50/checkpoint-3.pth.tar",
            "output/train/20261122-resnet50/recovery-4-900.pth.tar",
        ),
        "train.py /data --model resnet50 --resume CHECKPOINT",
        ("output/train/20261121-resnet50/model_best.pth.tar", "output/train/20261121-resnet50/summary.csv"),
        {"saves_on_signal": False},
    ),
    "yolo": Case(
        "ultralytics",
        "",
        "yolo detect train data=coco8.yaml model=yolo11n.pt epochs=100",
        ("runs/detect/train/weights/last.pt", "runs/detect/train2/weights/epoch10.pt"),
        "detect train data=coco8.yaml model=yolo11n.pt epochs=100 model=CHECKPOINT resume=True",
        ("runs/detect/train/weights/best.pt", "yolo11n.pt"),
        {"in_place": True},
    ),
    "yolo with a project and a name": Case(
        "ultralytics",
        "",
        "yolo train model=yolo11n.pt project=drones name=small",
        (
            "drones/small/weights/last.pt",
            "drones/small2/weights/last.pt",
            "runs/detect/drones/small/weights/last.pt",
        ),
        "train model=yolo11n.pt project=drones name=small model=CHECKPOINT resume=True",
        ("drones/large/weights/last.pt",),
    ),
    "ultralytics script": Case(
        "ultralytics",
        trainers.ULTRALYTICS,
        "python train.py",
        (),
        "train.py",
        extra={"resumes": "none", "integration": "ultralytics", "globs": (), "in_place": False},
    ),
    "mmengine": Case(
        "mmengine",
        trainers.MMENGINE,
        "python train.py configs/rtmdet_s.py --work-dir exp",
        ("exp/epoch_1.pth", "exp/iter_500.pth"),
        "train.py configs/rtmdet_s.py --work-dir exp --resume CHECKPOINT",
        ("exp/last_checkpoint", "configs/rtmdet_s.py"),
    ),
    "mmsegmentation": Case(
        "mmengine",
        trainers.MMSEG,
        "python train.py configs/unet.py",
        ("work_dirs/unet/iter_4000.pth",),
        "train.py configs/unet.py --resume",
        ("configs/unet.py",),
    ),
    "detectron2": Case(
        "detectron2",
        trainers.DETECTRON2,
        "python train.py --config-file c.yaml OUTPUT_DIR ./exp SOLVER.BASE_LR 0.001",
        ("exp/model_0004999.pth",),
        "train.py --resume --config-file c.yaml OUTPUT_DIR ./exp SOLVER.BASE_LR 0.001",
        ("exp/last_checkpoint", "exp/metrics.json"),
    ),
    "detectron2 default folder": Case(
        "detectron2",
        trainers.DETECTRON2,
        "python train.py",
        ("output/model_final.pth",),
        "train.py --resume",
    ),
    "fairseq": Case(
        "fairseq",
        "",
        "fairseq-train data-bin/wmt --arch transformer --save-dir ck",
        ("ck/checkpoint_last.pt", "ck/checkpoint_1_500.pt"),
        "data-bin/wmt --arch transformer --save-dir ck",
        extra={"resumes": "rerun"},
    ),
    "fairseq from another model": Case(
        "fairseq",
        "",
        "fairseq-train data-bin --restore-file model.pt",
        ("checkpoints/checkpoint_last.pt",),
        "data-bin --restore-file model.pt --restore-file CHECKPOINT",
    ),
    "fairseq that would begin anew": Case(
        "fairseq",
        "",
        "fairseq-train data-bin --restore-file model.pt --reset-optimizer",
        ("checkpoints/checkpoint_last.pt",),
        "data-bin --restore-file model.pt --reset-optimizer",
        extra={"resumes": "none"},
    ),
    "composer": Case(
        "composer",
        trainers.COMPOSER,
        "composer -n 2 train.py",
        ("resnet-a/checkpoints/ep0-ba500-rank0.pt",),
        "-n 2 train.py",
        ("resnet-a/checkpoints/readme",),
        {"resumes": "rerun", "grace_s": 40},
    ),
    "imagenet example": Case(
        "pytorch",
        trainers.IMAGENET,
        "python train.py -a resnet18 /data",
        ("checkpoint.pth.tar",),
        "train.py -a resnet18 /data --resume CHECKPOINT",
        ("model_best.pth.tar",),
        {"in_place": True},
    ),
    "a file for each epoch": Case(
        "pytorch",
        trainers.EPOCH_FILES,
        "python -u train.py --out-dir runs/b",
        ("runs/b/epoch_004.pt", "runs/b/epoch_005.pt"),
        "-u train.py --out-dir runs/b --resume CHECKPOINT",
        ("runs/b/final.pt", "runs/a/epoch_001.pt"),
        {"in_place": False},
    ),
    "loads what it saves": Case(
        "pytorch",
        trainers.LOADS_ITSELF,
        "python train.py",
        ("state/last.pt",),
        "train.py",
        extra={"resumes": "rerun", "in_place": True},
    ),
    "torchrun as a module": Case(
        "pytorch",
        trainers.IMAGENET,
        "python -m torch.distributed.run --nproc_per_node 2 train.py --epochs 5",
        ("checkpoint.pth.tar",),
        "-m torch.distributed.run --nproc_per_node 2 train.py --epochs 5 --resume CHECKPOINT",
        extra={"grace_s": 40},
    ),
}
