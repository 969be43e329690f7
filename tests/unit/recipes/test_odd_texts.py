"""No text, pattern or command line is too odd for a plan, or keeps its user waiting."""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path, PurePath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backprop.scheduler.errors import BadCommand
from backprop.scheduler.recipes.command_line import options_in, read_command
from backprop.scheduler.recipes.declared_options import options_of
from backprop.scheduler.recipes.plan import plan_for
from backprop.scheduler.recipes.registry import BY_NAME
from backprop.scheduler.recipes.script_parser import parse
from backprop.scheduler.recipes.source_reader import READ_LIMIT_BYTES
from backprop.scheduler.recipes.syntax_tree import PARSE_LIMIT_BYTES
from backprop.scheduler.spec import Plan
from tests.support import training_scripts as trainers
from tests.support.harness import ROOT
from tests.support.planning import READER, matching, planned
from tests.support.recipe_cases import CASES
from tools.docs.recipes import page


@pytest.mark.parametrize(
    "pattern", ["", " ", "/*", "/**/*.pt", "/*/x.pt", "out/*", "out/\n.pt", "x" * 5000, "a\udcff.pt"]
)
def test_a_bad_pattern_is_refused(pattern: str, tmp_path: Path) -> None:
    with pytest.raises(BadCommand, match="--checkpoint-glob") as told:
        planned(tmp_path, "", globs=(pattern,))
    assert "\n" not in str(told.value)


def test_odd_folders_are_taken_literally(tmp_path: Path) -> None:
    folder = tmp_path / "a[1] *"
    (folder / "o?t").mkdir(parents=True)
    (folder / "o?t" / "checkpoint-3").mkdir()
    (folder / "oat" / "checkpoint-4").mkdir(parents=True)
    plan = planned(folder, trainers.HF_TRAINER, "python train.py --output_dir o?t")
    assert matching(plan.globs[0]) == [str(folder / "o?t" / "checkpoint-3")]


NO_PYTHON_YET = "def train[[T]](\n    a: T,\n) =>\n    "
"""Syntax of no Python so far, as that of a newer one looks to an older."""


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].text])
def test_a_script_of_another_python_is_parsed_block_by_block(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    expected = planned(tmp_path, case.text, case.words)
    assert planned(tmp_path, f"print x\n{case.text}\nprint y\n", case.words) == expected
    inside = case.text.rstrip().replace("\n", "\n    ")
    found = planned(tmp_path, f"{NO_PYTHON_YET}{inside}\n    print x\n", case.words)
    assert (found.recipe, found.globs, found.resume_words) == (
        expected.recipe,
        expected.globs,
        expected.resume_words,
    )


def test_what_cannot_be_parsed_at_all_has_no_recipe(tmp_path: Path) -> None:
    long = trainers.HF_TRAINER + "# \n" * PARSE_LIMIT_BYTES
    plan = planned(tmp_path, long, "python train.py --output_dir o")
    assert (plan.recipe, plan.globs) == ("huggingface", (f"{tmp_path}/o/checkpoint-*",))
    assert planned(tmp_path, "print x\n# import torch, '--resume'\n") == Plan()


def test_where_ultralytics_was_told_to_put_its_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path))
    (tmp_path / "settings.json").write_text(json.dumps({"runs_dir": "/data/runs"}))
    assert "/data/runs/*/*/weights/last.pt" in planned(tmp_path, "", "yolo train").globs
    for text in ("{", "[]", '{"runs_dir": 3}', '{"runs_dir": "relative"}'):
        (tmp_path / "settings.json").write_text(text)
        assert planned(tmp_path, "", "yolo train").recipe == "ultralytics"


def test_the_document_is_what_the_entries_say() -> None:
    assert (ROOT / "docs" / "recipes.md").read_text() == page(), (
        "python -m tools.docs.recipes > docs/recipes.md"
    )


PIECES = st.sampled_from(
    [
        "import torch\n", "from transformers import Trainer, TrainingArguments\n", "import pytorch_lightning as pl\n",
        "Trainer(output_dir=", "pl.Trainer().fit(", "torch.save(x, ", "os.path.join(", "f'{a}/b",
        "p.add_argument('--resume'",
        "class A:\n  resume: str = ", "tyro.cli(A)", "'ckpt.pt'", "init_from", "a = a\n", "a = b / c\n", "(", ")", "\n",
        "'", '"""', "\\", "\0", "\udcff", "lambda: ", "[", "*", "%", "{", "}", "#",
    ]
)  # fmt: skip
TEXTS = st.lists(st.one_of(PIECES, st.text(max_size=20)), max_size=40).map("".join)
WORDS = st.lists(
    st.one_of(
        st.text(max_size=12),
        st.sampled_from(
            [
                "train.py",
                "-m",
                "yolo",
                "train",
                "--",
                "--output_dir",
                "out_dir=x",
                "torchrun",
                "fairseq-train",
            ]
        ),
    ),
    max_size=12,
)


@settings(max_examples=200, deadline=2000)
@given(text=TEXTS, raw=st.binary(max_size=30), words=WORDS)
def test_no_text_and_no_command_line_is_too_odd(
    tmp_path_factory: pytest.TempPathFactory, text: str, raw: bytes, words: list[str]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / "train.py").write_bytes(text.encode(errors="surrogatepass") + raw)
    plan = plan_for(["python", "train.py", *words], "python", folder / "train.py", folder, READER)
    assert all(each.startswith("/") for each in plan.globs)
    plan_for([*words, "train.py"], "", folder / "train.py", folder, READER)
    for recipe in BY_NAME:
        plan_for(["python", "train.py", *words], "python", folder / "train.py", folder, READER, recipe)


ENDLESS = {
    "one word": b"torch" + b"a" * (1 << 20),
    "parentheses": b"import torch\n" + b"(" * (1 << 19),
    "unary": b"import torch\nx = " + b"-" * 100_000 + b"1\n",
    "sums": b"import torch\ntorch.save(a, " + b"'a'+" * 20_000 + b"'b')\n",
    "attributes": b"import torch\ntorch.save(a, x" + b".y" * 50_000 + b")\n",
    "names for names": b"import torch\n" + b"".join(b"a%d = a%d + a%d\n" % (n, n + 1, n + 1) for n in range(3000))
    + b"torch.save(x, a0)\n",
    "saves": b"import torch\ndef f(p): torch.save(x, p)\n" + b"torch.save(x, f'{a}/{b}')\nf('a')\n" * 5000,
    "options": b"import torch, argparse\n" + b"p.add_argument('--checkpoint', help='to load')\n" * 5000,
    "options in what cannot be parsed": b"print x\nimport torch\n" + b"p.add_argument(((" * 60_000,
    "blanks": b"print x\nimport torch\nfrom " + b" " * (1 << 20),
    "quotes": b"print x\nimport torch\n" + b"a='" * (1 << 18),
    "nothing but NULs": b"torch" + b"\0" * (1 << 20),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDLESS)
def test_no_script_keeps_the_user_waiting(name: str, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_bytes(ENDLESS[name])
    began_s = time.monotonic()
    plan_for(["python", "train.py"], "python", tmp_path / "train.py", tmp_path, READER)
    assert time.monotonic() - began_s < 10, "a second or so, on a machine with nothing else to do"


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "train.py")
    assert plan_for(["python", "train.py"], "python", tmp_path / "train.py", tmp_path, READER) == Plan()
    assert plan_for(["python", "missing.py"], "python", tmp_path / "missing.py", tmp_path, READER) == Plan()
    (tmp_path / "a.py").mkdir()
    assert plan_for(["python", "a.py"], "python", None, tmp_path, READER) == Plan()


def test_options_as_they_are_written() -> None:
    told = options_in(
        ["--a=1", "--b-c", "2", "--flag", "--d", "", "e=5", "OUTPUT_DIR", "x", "word", "--a=9", "t.max=3"]
    )
    assert told["a"] == "9"
    assert (told["b_c"], told["flag"], told["e"], told["OUTPUT_DIR"], told["t.max"], told["max"]) == (
        "2", "", "5", "x", "3", "3",
    )  # fmt: skip
    assert "word" not in told


def test_what_stands_before_the_script(tmp_path: Path) -> None:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "train.py").touch()
    module = read_command(["python", "-m", "pkg.train", "--a", "1"], tmp_path, READER)
    assert (module.script, module.at) == (tmp_path / "pkg" / "train.py", 3)
    deep = read_command(
        ["nice", "uv", "run", "accelerate", "launch", "--x", "1", "pkg/train.py", "b"], tmp_path, READER
    )
    assert (deep.launchers, deep.arguments) == (frozenset({"accelerate"}), ("b",))
    assert read_command(["/venv/bin/yolo", "train"], tmp_path, READER).entry == "yolo"
    assert read_command(["bash", "train.sh"], tmp_path, READER).script is None


def test_options_are_found_once_by_name() -> None:
    twice = b"p.add_argument('-o', '--out-dir', default='a')\np.add_argument('--out_dir', default='b')\n"
    found = options_of(parse(twice + b"p.add_argument('x')\n"))
    assert list(found) == ["out_dir"]
    assert found["out_dir"].flag == "--out-dir"


class Memory:
    """A machine of a few texts, and nothing else."""

    environment: Mapping[str, str] = {"YOLO_CONFIG_DIR": "~/yolo"}

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files

    def is_file(self, path: PurePath) -> bool:
        return str(path) in self._files

    def read(self, path: PurePath, limit_bytes: int = READ_LIMIT_BYTES) -> bytes:
        return self._files.get(str(path), b"")[:limit_bytes]

    def expand_user(self, path: str) -> str:
        return path.replace("~", "/home/a", 1)


def test_a_plan_needs_no_disk() -> None:
    cwd = PurePath("/nowhere")
    memory = Memory(
        {"/nowhere/train.py": trainers.IMAGENET.encode(), "/home/a/yolo/settings.json": b'{"runs_dir": "/r"}'}
    )
    plan = plan_for(["python", "train.py"], "python", None, cwd, memory, globs=["~/out/*.pt"])
    assert (plan.recipe, plan.globs) == ("pytorch", ("/home/a/out/*.pt",))
    assert "/r/*/*/weights/last.pt" in plan_for(["yolo", "train"], "yolo", None, cwd, memory).globs
