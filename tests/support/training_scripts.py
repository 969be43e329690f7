"""Holds training scripts as people write them, cut to what a recipe goes by. None is for Backprop; none is run."""

HF_TRAINER = '''
"""Fine-tune a language model."""
from dataclasses import dataclass, field
from transformers import AutoModelForCausalLM, AutoTokenizer, HfArgumentParser, Trainer, TrainingArguments

@dataclass
class DataArguments:
    train_file: str = field(default=None, metadata={"help": "The input training data."})

def main():
    parser = HfArgumentParser((DataArguments, TrainingArguments))
    data_args, training_args = parser.parse_args_into_dataclasses()
    model = AutoModelForCausalLM.from_pretrained("gpt2")
    trainer = Trainer(model=model, args=training_args, train_dataset=load(data_args.train_file))
    checkpoint = None
    if training_args.resume_from_checkpoint is not None:
        checkpoint = training_args.resume_from_checkpoint
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model()

if __name__ == "__main__":
    main()
'''
TRL_SFT = """
from datasets import load_dataset
from trl import SFTConfig, SFTTrainer

args = SFTConfig(output_dir="sft-out", max_steps=1000, save_steps=50)
trainer = SFTTrainer("Qwen/Qwen2.5-0.5B", train_dataset=load_dataset("trl-lib/Capybara", split="train"), args=args)
trainer.train()
"""
HF_LAST_CHECKPOINT = """
import os
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments
from transformers.trainer_utils import get_last_checkpoint

args = Seq2SeqTrainingArguments(output_dir="runs/mt")
last = get_last_checkpoint(args.output_dir) if os.path.isdir(args.output_dir) else None
Seq2SeqTrainer(model=model, args=args).train(resume_from_checkpoint=last)
"""
TOKENIZER_ONLY = """
import torch
from transformers import AutoTokenizer, Trainer

tokenizer = AutoTokenizer.from_pretrained("gpt2")
model = torch.nn.Linear(2, 2)
model.train()
torch.save(model.state_dict(), "model.pt")
"""
DIFFUSERS = """
import argparse, os
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration
from diffusers import DDPMPipeline

def parse_args():
    parser = argparse.ArgumentParser()
    parser.add_argument("--output_dir", type=str, default="ddpm-model-64", help="Where the model is written.")
    parser.add_argument("--checkpointing_steps", type=int, default=500)
    parser.add_argument(
        "--resume_from_checkpoint",
        type=str,
        default=None,
        help=(
            "Whether training should be resumed from a previous checkpoint. Use a path saved by"
            ' `--checkpointing_steps`, or `"latest"` to automatically select the last available checkpoint.'
        ),
    )
    return parser.parse_args()

args = parse_args()
accelerator = Accelerator(project_config=ProjectConfiguration(project_dir=args.output_dir))
accelerator.save_state(os.path.join(args.output_dir, f"checkpoint-{global_step}"))
"""
ACCELERATE = DIFFUSERS.replace("default=500", "default=None").replace("ddpm-model-64", ".")
LIGHTNING_CLI = """
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.demos.boring_classes import BoringModel

if __name__ == "__main__":
    LightningCLI(BoringModel)
"""
LIGHTNING_SCRIPT = """
from argparse import ArgumentParser
import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint

parser = ArgumentParser()
parser.add_argument("--ckpt_path", default=None)
args = parser.parse_args()
trainer = pl.Trainer(max_epochs=100, callbacks=[ModelCheckpoint(dirpath="weights", save_last=True)])
trainer.fit(Model(), ckpt_path=args.ckpt_path)
"""
LIGHTNING_NO_WAY = """
import lightning as L
trainer = L.Trainer(default_root_dir="logs", max_epochs=3)
trainer.fit(Model(), Data())
"""
KERAS = """
import os
os.environ["KERAS_BACKEND"] = "jax"
import keras

model.fit(x, y, epochs=20, callbacks=[keras.callbacks.BackupAndRestore(backup_dir="/tmp_of_run/backup")])
"""
KERAS_FIT = """
import keras
model = keras.Sequential([keras.layers.Dense(1)])
model.compile(loss="mse")
model.fit(x, y, epochs=20)
"""
KERAS_TF = """
import tensorflow as tf
backup = tf.keras.callbacks.BackupAndRestore("backup")
model.fit(x, epochs=20, callbacks=[backup])
"""
NANOGPT = """
import os, time
import torch
# default config values designed to train a gpt2 (124M) on OpenWebText
out_dir = 'out'
eval_interval = 2000
init_from = 'scratch' # 'scratch' or 'resume' or 'gpt2*'
config_keys = [k for k,v in globals().items() if not k.startswith('_') and isinstance(v, (int, float, bool, str))]
exec(open('configurator.py').read()) # overrides from command line or config file

if init_from == 'scratch':
    model = GPT(gptconf)
elif init_from == 'resume':
    ckpt_path = os.path.join(out_dir, 'ckpt.pt')
    checkpoint = torch.load(ckpt_path, map_location=device)
while True:
    if iter_num > 0:
        torch.save(checkpoint, os.path.join(out_dir, 'ckpt.pt'))
"""
TIMM = """
import argparse, os
import torch
from timm import utils
from timm.models import create_model, resume_checkpoint

parser = argparse.ArgumentParser(description='PyTorch ImageNet Training')
group = parser.add_argument_group('Model parameters')
group.add_argument('--resume', default='', type=str, metavar='PATH',
                   help='Resume full model and optimizer state from checkpoint (default: none)')
group.add_argument('--output', default='', type=str, metavar='PATH', help='path to output folder (default: none)')
group.add_argument('--experiment', default='', type=str, metavar='NAME', help='name of train experiment')

def main():
    args = parser.parse_args()
    if args.resume:
        resume_epoch = resume_checkpoint(model, args.resume, optimizer=optimizer)
    output_dir = utils.get_outdir(args.output if args.output else './output/train', exp_name)
    saver = utils.CheckpointSaver(model=model, optimizer=optimizer, args=args, checkpoint_dir=output_dir)
    try:
        for epoch in range(100):
            saver.save_checkpoint(epoch)
    except KeyboardInterrupt:
        pass
"""
ULTRALYTICS = """
from ultralytics import YOLO
model = YOLO("yolo11n.pt")
model.train(data="coco8.yaml", epochs=100, project="drones", name="small")
"""
MMENGINE = """
import argparse, os.path as osp
from mmengine.config import Config
from mmengine.runner import Runner

parser = argparse.ArgumentParser(description='Train a model')
parser.add_argument('config', help='train config file path')
parser.add_argument('--work-dir', help='the dir to save logs and models')
parser.add_argument(
    '--resume', nargs='?', type=str, const='auto',
    help='If specify checkpoint path, resume from it, while if not specify, try to auto resume from the latest '
    'checkpoint in the work directory.')
args = parser.parse_args()
cfg = Config.fromfile(args.config)
Runner.from_cfg(cfg).train()
"""
MMSEG = MMENGINE.replace("nargs='?', type=str, const='auto'", "action='store_true', default=False")
DETECTRON2 = """
from detectron2.config import get_cfg
from detectron2.engine import DefaultTrainer, default_argument_parser, default_setup, launch

def main(args):
    cfg = get_cfg()
    cfg.merge_from_list(args.opts)
    trainer = DefaultTrainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    return trainer.train()

if __name__ == "__main__":
    args = default_argument_parser().parse_args()
    launch(main, args.num_gpus, args=(args,))
"""
COMPOSER = """
from composer import Trainer
trainer = Trainer(model=model, train_dataloader=dl, max_duration="90ep", run_name="resnet-a",
                  save_folder="{run_name}/checkpoints", save_interval="500ba", autoresume=True)
trainer.fit()
"""
IMAGENET = """
import argparse
import shutil
import torch
import torch.nn as nn

parser = argparse.ArgumentParser(description='PyTorch ImageNet Training')
parser.add_argument('data', metavar='DIR', nargs='?', default='imagenet', help='path to dataset')
parser.add_argument('--resume', default='', type=str, metavar='PATH', help='path to latest checkpoint (default: none)')
parser.add_argument('-e', '--evaluate', dest='evaluate', action='store_true')

def main_worker(args):
    if args.resume:
        checkpoint = torch.load(args.resume)
        optimizer.load_state_dict(checkpoint['optimizer'])
    for epoch in range(args.start_epoch, args.epochs):
        save_checkpoint({'epoch': epoch + 1, 'state_dict': model.state_dict()}, is_best)

def save_checkpoint(state, is_best, filename='checkpoint.pth.tar'):
    torch.save(state, filename)
    if is_best:
        shutil.copyfile(filename, 'model_best.pth.tar')
"""
EPOCH_FILES = """
import os
from pathlib import Path
import torch, tyro
from dataclasses import dataclass

@dataclass
class Args:
    out_dir: str = "runs/a"
    resume: str | None = None

def main(args: Args):
    out = Path(args.out_dir)
    for epoch in range(10):
        torch.save(dict(model=model.state_dict(), opt=opt.state_dict()), out / f"epoch_{epoch:03d}.pt")
    torch.save(model.state_dict(), out / "final.pt")

main(tyro.cli(Args))
"""
LOADS_ITSELF = """
import os, torch
PATH = os.path.join("state", "last.pt")
start = 0
if os.path.exists(PATH):
    state = torch.load(PATH)
    optimizer.load_state_dict(state["optimizer"])
for step in range(start, 1000):
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, PATH)
"""
