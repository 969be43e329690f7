"""What --grid, --array, --params, a line of --batch and --begin mean, as typed."""

import shlex
from datetime import datetime
from pathlib import Path

import pytest

from backprop.cli.options.times import read_begin
from backprop.cli.submit.many.batch_file import read_lines, scan
from backprop.cli.submit.many.sweep import SweepSpec, Template
from backprop.cli.submit.many.sweep_options import read_array, read_grid, read_params
from backprop.scheduler.errors import BadCommand


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("lr=1e-3,1e-4", ["1e-3", "1e-4"]),
        ("seed=0..3", ["0", "1", "2", "3"]),
        ("n=0..10..4,7", ["0", "4", "8", "7"]),
        ("n=3..1", ["3", "2", "1"]),
        ("n=-1..1", ["-1", "0", "1"]),
        ("x=../a..b", ["../a..b"]),
        ('layers="64,64",128', ["64,64", "128"]),
        ("cfg=a=b,c", ["a=b", "c"]),
        ("layers=[64,64],[128,128]", ["[64,64]", "[128,128]"]),
        ("shape=(1,2),(3,[4,5])", ["(1,2)", "(3,[4,5])"]),
        ('opt={"lr":1,"name":"a,]b"},{}', ['{"lr":1,"name":"a,]b"}', "{}"]),
        ("opt=['a,b','it]'],c", ["['a,b','it]']", "c"]),
        ("words='a,b',c", ["a,b", "c"]),
        ("words='tis,it's", ["'tis", "it's"]),
        ('say="say ""a,b""",c', ['say "a,b"', "c"]),
        ('sign="[,",c', ["[,", "c"]),
        ("name=a[0..2],b", ["a[0..2]", "b"]),
        ("f=model(a=1,b=2)x,y", ["model(a=1,b=2)x", "y"]),
    ],
)
def test_the_values_of_a_grid(text: str, values: list[str]) -> None:
    assert list(read_grid([text]).values()) == [values]


@pytest.mark.parametrize(
    "text",
    [
        "lr",
        "=1",
        "lr=",
        "lr=1,,2",
        "l r=1",
        "n=0..5..0",
        "n=1,1",
        "n=0..200000",
        'x="a',
        "layers=[64,64",
        "layers=64,64]",
        "layers=[64,64),1",
        'x="a"b,c',
        "x=[1,2],[1,2]",
        "x=[1],",
        "x=['a],b",
        "n=1..2,2",
        "x=1.5..2",
        "lr=1e-4..1e-3",
    ],
)
def test_what_is_no_grid(text: str) -> None:
    with pytest.raises(BadCommand, match="--grid"):
        read_grid([text])
    with pytest.raises(BadCommand, match="twice"):
        read_grid(["n=1", "n=2"])


@pytest.mark.parametrize(
    ("text", "indices", "at_once"),
    [
        ("1-4", [1, 2, 3, 4], None),
        ("1-100%4", list(range(1, 101)), 4),
        ("1,3,5-7", [1, 3, 5, 6, 7], None),
        ("0-90:30", [0, 30, 60, 90], None),
        ("7%1", [7], 1),
    ],
)
def test_the_indices_of_an_array(text: str, indices: list[int], at_once: int | None) -> None:
    assert read_array(text) == (indices, at_once)


@pytest.mark.parametrize(
    "text", ["", "a", "5-1", "1-", "-3", "1,1", "1-3,2", "1%0", "1%x", "1-9:0", "0-999999"]
)
def test_what_is_no_array(text: str) -> None:
    with pytest.raises(BadCommand, match="--array"):
        read_array(text)


def test_rows_of_files(tmp_path: Path) -> None:
    table = tmp_path / "p.csv"
    table.write_text('\ufefflr, note\n1e-3,"a, b"\n\n0.10,\n')
    assert read_params(table) == [{"lr": "1e-3", "note": "a, b"}, {"lr": "0.10", "note": ""}]
    lines = tmp_path / "p.jsonl"
    lines.write_text(
        '{"lr": 1e-3, "on": true, "name": "ü\\"", "l": [1, 2]}\n\n{"l": null, "lr": 2, "on": false, "name": ""}\n'
    )
    assert read_params(lines) == [
        {"lr": "1e-3", "on": "true", "name": 'ü"', "l": "[1, 2]"},
        {"lr": "2", "on": "false", "name": "", "l": "null"},
    ]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("p.csv", "a,b\n1,2\n3\n", "line 3: 1 values for 2 columns"),
        ("p.csv", "a,a\n1,2\n", "line 1: every column"),
        ("p.csv", 'a\n"1\n', "line 2"),
        ("p.csv", "a\n", "has no rows"),
        ("p.jsonl", '{"a": 1}\n[1]\n', "line 2 is not a JSON object"),
        ("p.jsonl", '{"a": 1}\n\n{"b": 1}\n', "line 3 does not have the keys of the first row: a, b"),
        ("p.jsonl", '{"a": "\\u0000"}\n', "line 1"),
        ("p.txt", "a\n1\n", "ends neither in"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(BadCommand, match=says.replace("[", r"\[")):
        read_params(tmp_path / name)
    with pytest.raises(BadCommand, match="cannot be read"):
        read_params(tmp_path / "none.csv")


def test_the_last_varies_fastest() -> None:
    sweep = SweepSpec(rows=[{"d": "x"}, {"d": "y"}], grid={"lr": ["1", "2"], "s": ["a"]}, indices=[5, 6])
    assert len(sweep) == 8
    assert [(one.label, one.index) for one in sweep.variants()] == [
        ("1-1-a-5", 5), ("1-1-a-6", 6), ("1-2-a-5", 5), ("1-2-a-6", 6),
        ("2-1-a-5", 5), ("2-1-a-6", 6), ("2-2-a-5", 5), ("2-2-a-6", 6),
    ]  # fmt: skip
    with pytest.raises(BadCommand, match="at most 100,000"):
        SweepSpec(grid={"a": [str(n) for n in range(400)], "b": [str(n) for n in range(251)]})
    with pytest.raises(BadCommand, match="two sources"):
        SweepSpec(rows=[{"a": "1"}], grid={"a": ["1"]})


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("--lr={lr}", "--lr=1e-3"),
        ('{"lr": {lr}, "x": {}}', '{"lr": 1e-3, "x": {}}'),
        ("{{lr}}", "{1e-3}"),
        ("{LR} {lr } {seed", "{LR} {lr } {seed"),
        ("{odd}", "{lr}"),
        ("{lr}{lr}", "1e-31e-3"),
        ("${HOME}", "${HOME}"),
    ],
)
def test_only_known_keys_are_replaced(text: str, filled: str) -> None:
    template = Template(frozenset({"lr", "seed", "odd"}))
    assert template.of(text)({"lr": "1e-3", "seed": "0", "odd": "{lr}"}) == filled


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("train.py -- --tag '#1' # a comment", ["train.py", "--", "--tag", "#1"]),
        ("train.py -- out#1 \\#2", ["train.py", "--", "out#1", "#2"]),
        ("# nothing", []),
        ("train.py -- \"a #b\" 'c'#d", ["train.py", "--", "a #b", "c#d"]),
    ],
)
def test_a_comment_begins_where_a_shell_says(line: str, words: list[str]) -> None:
    assert shlex.split(scan(line)[0]) == words


def test_what_is_a_lines_own(tmp_path: Path) -> None:
    path = tmp_path / "jobs"
    path.write_text("-m 3 -n a train.py --env X=1 --python -n -- -n b\n\nbackprop run t.py --name=c\n")
    first, second = read_lines(str(path), frozenset({"-m", "--python"}))
    assert (first.number, first.shared, first.arguments) == (
        1,
        ("-m", "3", "train.py", "--python", "-n"),
        ("-n", "b"),
    )
    assert (first.value("--name"), first.env) == ("a", ("X=1",))
    assert (second.number, second.shared, second.value("--name")) == (3, ("t.py",), "c")


NOON_S = datetime(2030, 5, 10, 12, 0).timestamp()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("22:00", datetime(2030, 5, 10, 22, 0)),
        ("6:00", datetime(2030, 5, 11, 6, 0)),
        ("today 13:30:05", datetime(2030, 5, 10, 13, 30, 5)),
        ("tomorrow 6:00", datetime(2030, 5, 11, 6, 0)),
        ("+2h", datetime(2030, 5, 10, 14, 0)),
        ("+1d2h3m4s", datetime(2030, 5, 11, 14, 3, 4)),
        ("2030-06-01T08:00", datetime(2030, 6, 1, 8, 0)),
        ("2030-06-01 08:00:00", datetime(2030, 6, 1, 8, 0)),
    ],
)
def test_times_to_begin(text: str, expected: datetime) -> None:
    assert read_begin(text, NOON_S) == expected.timestamp()


@pytest.mark.parametrize(
    "text", ["", "soon", "25:00", "+", "+2", "today 6:00", "2030-05-10T11:59", "2029-01-01", "22"]
)
def test_no_time_to_begin(text: str) -> None:
    with pytest.raises(BadCommand, match="--begin"):
        read_begin(text, NOON_S)


def test_a_zone_counts() -> None:
    assert (
        read_begin("2030-06-01T08:00+00:00", NOON_S)
        == datetime.fromisoformat("2030-06-01T08:00+00:00").timestamp()
    )


def test_a_line_of_a_batch_goes_on_after_a_backslash_as_in_a_shell(tmp_path: Path) -> None:
    path = tmp_path / "jobs"
    path.write_bytes(
        b"a.py -m 3 \\\n  -- --lr 1 \\\r\n --seed 2\n# not me \\\nb.py -- 'x\\' y\\\nz\n\nc.py -- \\\\\nd.py \\\n\n"
    )
    lines = read_lines(str(path), frozenset({"-m"}))
    assert [(line.number, line.shared, line.arguments) for line in lines] == [
        (1, ("a.py", "-m", "3"), ("--lr", "1", "--seed", "2")),
        (5, ("b.py",), ("x\\", "yz")),
        (8, ("c.py",), ("\\",)),
        (9, ("d.py",), ()),
    ]
    for text in ("a.py\nb.py \\", "a.py\nb.py -- 'x \\\ny'\n"):
        path.write_text(text)
        with pytest.raises(BadCommand, match="line 2"):
            read_lines(str(path), frozenset())
