"""Recipes, `--set`, and the command line."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from bad_inputs.case import CALIBRATED, PRUNE, Case

STEP = "  - {prune: [channels], by: magnitude, remove: 25%}\n"


def _text(name: str, text: str | bytes, *says: str, code: int = 2) -> Case:
    """The whole recipe."""

    def prepare(folder: Path) -> None:
        (folder / "m.yaml").write_bytes(text.encode() if isinstance(text, str) else text)

    return Case(name, ("m.yaml", *says) if code == 2 and ":" not in says[0] else says, prepare, code=code)


def _step(name: str, step: str, *says: str, code: int = 2) -> Case:
    """The only step, in braces."""
    return _text(name, f"steps:\n  - {{{step}}}\n", *says, code=code)


def _calibrate(name: str, text: str, *says: str, code: int = 2) -> Case:
    return _text(name, f"calibrate: {{{text}}}\nsteps:\n{STEP.replace('magnitude', 'wanda')}", *says, code=code)


def _set(name: str, text: str, *says: str, code: int = 2) -> Case:
    return Case(name, says, command=f"{PRUNE} --set '{text}'", code=code)


def _command(name: str, command: str, *says: str, code: int = 2) -> Case:
    return Case(name, says, command=command, code=code)


def _instead(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        (folder / "m.yaml").unlink()
        make(folder / "m.yaml")

    return prepare


CHANNELS = "prune: [channels], by: magnitude, "
LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
CASES = [
    _text("empty", "", "recipe is empty", "steps:"),
    _text("blank", "\n\n   \n", "recipe is empty", "steps:"),
    _text("a list", "- 1\n", "not a mapping", "steps:"),
    _text("a word", "hello\n", "not a mapping", "steps:"),
    _text("a zero byte", b"steps:\x00\n", "m.yaml"),
    _text("binary", bytes(range(256)), "not a text file in UTF-8"),
    _text("UTF-16", "steps: []".encode("utf-16"), "not a text file in UTF-8"),
    _text("JSON cut off", '{"steps": [', "m.yaml:1"),
    _text("a tab", "steps:\n\t- prune: x\n", "m.yaml:2"),
    _text("a tag of python", "steps: !!python/object/apply:os.system ['true']\n", "m.yaml"),
    _text("an unknown anchor", "steps: *nosuch\n", "m.yaml:1", "nosuch"),
    _text("an anchor within itself", "steps: &a [*a]\n", "m.yaml:1", "steps.0"),
    _text("a billion laughs", LAUGHS + "steps: *i\n", "m.yaml"),
    _text("a key twice", f"steps:\n{STEP}steps:\n{STEP}", "duplicate key", "steps"),
    _text("two documents", f"steps:\n{STEP}---\nsteps:\n{STEP}", "m.yaml"),
    _text("nested without end", "steps: " + "[" * 50_000, "nested", "deep"),
    _text("nested in order", "steps: " + "[" * 2000 + "]" * 2000, "nested", "deep"),
    _text("objects nested without end", "{a: " * 5000, "nested", "deep"),
    _text("as long as a book", "# " + "x" * 3_000_000, "long"),
    _text("no steps", "about: x\n", "'steps' is missing"),
    _text("steps empty", "steps: []\n", "m.yaml:1", "steps: at least one is needed"),
    _text("steps null", "steps:\n", "m.yaml:2", "steps"),
    _text("steps a word", "steps: prune\n", "m.yaml:1", "steps"),
    _text("steps an object", "steps: {prune: channels}\n", "m.yaml:1", "steps"),
    _text("a step null", "steps: [null]\n", "m.yaml:1", "steps.0"),
    _text("a step a word", "steps: [prune]\n", "m.yaml:1", "steps.0"),
    _text("a step a list", "steps: [[prune]]\n", "m.yaml:1", "steps.0"),
    _text("an unknown key", f"stepz: 1\nsteps:\n{STEP}", "stepz", "did you mean 'steps'"),
    _text("seed negative", f"seed: -1\nsteps:\n{STEP}", "m.yaml:1:7", "seed", "-1"),
    _text("seed beyond 64 bits", f"seed: {10**30}\nsteps:\n{STEP}", "m.yaml:1:7", "seed"),
    _text("seed a word", f"seed: lucky\nsteps:\n{STEP}", "m.yaml:1:7", "seed", "lucky"),
    _text("seed a float", f"seed: 0.5\nsteps:\n{STEP}", "m.yaml:1:7", "seed"),
    _text("seed true", f"seed: true\nsteps:\n{STEP}", "m.yaml:1:7", "seed"),
    _text("seed the largest", f"seed: {2**63 - 1}\nsteps:\n{STEP}", "wrote out", code=0),
    _text("about a number", f"about: 3\nsteps:\n{STEP}", "m.yaml:1:8", "about"),
    _text("about of any characters", f"about: '<script>---\U0001f600'\nsteps:\n{STEP}", "wrote out", code=0),
    _text("export unknown", f"export: tflite\nsteps:\n{STEP}", "export"),
    _step("no verb", "by: magnitude, remove: 25%", "'prune' is missing"),
    _step("kind unknown", "prune: chanels, by: magnitude, remove: 25%", "chanels", "did you mean 'channels'"),
    _step("kinds none", "prune: [], by: magnitude, remove: 25%", "prune"),
    _step("kinds a number", "prune: 3, by: magnitude, remove: 25%", "prune"),
    _step("a kind twice", "prune: [channels, channels], by: magnitude, remove: 25%", "stands here twice"),
    _step("a kind that the model has not", "prune: experts, by: reap, remove: 25%", "steps.0", "no experts to prune",
          code=4),
    _step("no criterion", "prune: channels, remove: 25%", "'by' is missing"),
    _step("criterion unknown", "prune: channels, by: magnitud, remove: 25%", "did you mean 'magnitude'"),
    _step("criterion a number", "prune: channels, by: 3, remove: 25%", "by", "criterion"),
    _step("criterion two", "prune: channels, by: {magnitude: {}, wanda: {}}, remove: 25%", "criterion"),
    _step("criterion with an unknown argument", "prune: channels, by: {magnitude: {nosuch: 1}}, remove: 25%",
          "nosuch"),
    _step("no budget", "prune: channels, by: magnitude", "no budget", "remove: 20%"),
    _step("two budgets", CHANNELS + "remove: 25%, until: 20%", "one budget"),
    _step("a bare number", CHANNELS + "remove: 25", "25 is no share", "25%"),
    _step("a share of none", CHANNELS + "remove: 0%", "remove", "between 0% and 100%"),
    _step("a share of all", CHANNELS + "remove: 100%", "remove", "between 0% and 100%"),
    _step("a share above all", CHANNELS + "remove: 130%", "remove", "between 0% and 100%"),
    _step("a share negative", CHANNELS + "remove: -5%", "remove", "no share"),
    _step("a share a word", CHANNELS + "remove: half", "remove", "no share"),
    _step("a share not a number", CHANNELS + "remove: .nan", "remove", "no share"),
    _step("a share without end", CHANNELS + "remove: .inf", "remove", "no share"),
    _step("a share a list", CHANNELS + "remove: [25%]", "remove", "no share"),
    _step("a share true", CHANNELS + "remove: true", "remove", "no share"),
    _step("a share null", CHANNELS + "remove:", "no budget"),
    _step("a share 1e308", CHANNELS + "remove: 1e308", "remove", "no share"),
    _step("keep of an unknown measure", CHANNELS + "keep: {watts: 50%}", "watts"),
    _step("keep of nothing", CHANNELS + "keep: {}", "keep"),
    _step("keep of two", CHANNELS + "keep: {params: 50%, flops: 50%}", "keep"),
    _step("keep of too little", CHANNELS + "keep: {params: 1%}", "steps.0", "params", "let at least that", code=4),
    _step("until too much", CHANNELS + "until: 99%", "steps.0", "let at least that", code=4),
    _step("allocator unknown", CHANNELS + "remove: 25%, allocate: globl", "globl"),
    _step("repair unknown", CHANNELS + "remove: 25%, repair: magic", "magic"),
    _step("round zero", CHANNELS + "remove: 25%, round: 0", "round"),
    _step("round of a sextillion", CHANNELS + "remove: 25%, round: 100000000000000000000", "m.yaml:2", "round"),
    _step("round negative", CHANNELS + "remove: 25%, round: -8", "round"),
    _step("round a float", CHANNELS + "remove: 25%, round: 8.5", "round"),
    _step("round beyond the width", CHANNELS + "remove: 25%, round: 4096", "steps.0", "4096", "lower `round:`", code=4),
    _step("widths unknown", CHANNELS + "remove: 25%, widths: wild", "widths"),
    _step("skip_layers words", CHANNELS + "remove: 25%, skip_layers: [first]", "skip_layers"),
    _step("skip_layers not there", CHANNELS + "remove: 25%, skip_layers: [99]", "skip_layers: 99", "3"),
    _step("skip a number", CHANNELS + "remove: 25%, skip: 3", "skip"),
    _step("almost all", CHANNELS + "remove: 99.9%", "steps.0", "remain at the least", "let at least that", code=4),
    _step("an unknown key of a step", CHANNELS + "remove: 25%, roundd: 8", "roundd", "did you mean 'round'"),
    _step("pattern of no kind", "prune: weights, by: magnitude, pattern: x", "pattern"),
    _step("pattern upside down", "prune: weights, by: magnitude, pattern: '4:2'", "pattern"),
    _step("pattern of none", "prune: weights, by: magnitude, pattern: '0:4'", "pattern"),
    _step("pattern of giants", "prune: weights, by: magnitude, pattern: '2:100000000000000000000'", "pattern: 2:1",
          "skip:"),
    _calibrate("samples none", "data: text.txt, samples: 0", "samples"),
    _calibrate("samples negative", "data: text.txt, samples: -1", "samples"),
    _calibrate("samples a trillion", "data: random, samples: 1000000000000", "samples", "tokens", "lower"),
    _calibrate("length a trillion", "data: random, length: 1000000000000", "length", "tokens", "lower"),
    _calibrate("batch none", "data: text.txt, batch: 0", "batch"),
    _calibrate("batch a trillion", "data: text.txt, samples: 2, length: 16, batch: 1000000000000", "wrote out", code=0),
    _calibrate("samples a word", "data: text.txt, samples: many", "samples"),
    _calibrate("length zero", "data: text.txt, length: 0", "length"),
    _calibrate("length beyond the model", "data: text.txt, length: 4096", "calibrate.length: 4096", "512"),
    _calibrate("data unknown", "data: nosuch", "nosuch"),
    _calibrate("data a number", "data: 3", "data"),
    _calibrate("an unknown key of calibrate", "sampels: 3", "sampels", "did you mean 'samples'"),
    _text("calibrate a word", f"calibrate: docs\nsteps:\n{STEP}", "calibrate"),
    Case("missing", ("nosuch.yaml", "no such recipe"), command="nosuch.yaml base out"),
    Case("misspelt", ("mm.yaml", "did you mean 'm.yaml'"), command="mm.yaml base out"),
    Case("a folder", ("base", "folder"), command="base base out"),
    Case("a pipe", ("m.yaml", "named pipe", "ordinary file"), _instead(os.mkfifo)),
    Case("a device", ("m.yaml", "device", "ordinary file"), _instead(lambda file: file.symlink_to("/dev/zero"))),
    Case("a dangling link", ("m.yaml", "link", "nowhere"), _instead(lambda file: file.symlink_to("nowhere"))),
    Case("named like a book", ("xxx", "File name too long"), command=f"{'x' * 5000}.yaml base out"),
    Case("the model's weights", ("model.safetensors", "UTF-8"), command="base/model.safetensors base out"),
    Case("the model's config", ("config.json", "unknown key"), command="base/config.json base out"),
    _set("--set without a value", "steps.0.remove", "--set steps.0.remove", "key=value"),
    _set("--set of nothing", "=3", "--set =3", "key=value"),
    _set("--set unknown", "stepz=3", "--set stepz=3", "did you mean"),
    _set("--set of a step too far", "steps.7.remove=30%", "steps.7", "items 0 to 0"),
    _set("--set of a step that is negative", "steps.-1.remove=30%", "steps.-1"),
    _set("--set inside a word", "steps.0.by.x.y=1", "nothing inside"),
    _set("--set of a bad share", "steps.0.remove=200%", "--set steps.0.remove=200%"),
    _set("--set of no YAML", "steps.0.remove=[", "--set steps.0.remove=["),
    _set("--set nested without end", "about=" + "[" * 3000, "--set about", "deep"),
    _set("--set of steps", "steps=[]", "--set steps=[]", "at least one is needed"),
    _command("no output", "m.yaml base", "OUT"),
    _command("too many arguments", "m.yaml base out more", "more"),
    _command("an option unknown", PRUNE + " --nosuch", "--nosuch"),
    _command("an option misspelt", PRUNE + " --forse", "--forse"),
    _command("--device unknown", CALIBRATED + " --device quantum", "--device quantum", "auto"),
    _command("--device meta", CALIBRATED + " --device meta", "--device meta", "cpu"),
    _command("--device that is not here", CALIBRATED + " --device cuda:77", "--device cuda:77", "cpu"),
    _command("--device of nothing", CALIBRATED + " --device ''", "--device", "cpu"),
    _command("--device negative", CALIBRATED + " --device cpu:-1", "--device cpu:-1"),
    _command("--device of a library", CALIBRATED + " --device fpga", "--device fpga", "cpu"),
    _command("--push to no name", PRUNE + " --push 'a b c'", "a b c"),
    _command("eval of no samples", "eval base --samples 0", "--samples 0"),
    _command("eval of a trillion samples", "eval base --data random --samples 1000000000000", "samples", "tokens"),
    _command("eval of samples that are words", "eval base --samples many", "many"),
    _command("eval of an unknown text", "eval base --data nosuch", "--data", "nosuch"),
    _command("compare without a model", "compare m.yaml -o out", "compare"),
    _command("compare without a recipe", "compare base -o out", "compare"),
    _command("apply of a missing plan", "apply plan.json base out", "plan.json", "compress plan"),
    _command("apply of a recipe", "apply m.yaml base out", "m.yaml", "not a plan"),
    Case("apply of a pipe", ("plan.json", "named pipe"), lambda folder: os.mkfifo(folder / "plan.json"),
         "apply plan.json base out"),
    Case("apply of a device", ("plan.json", "device"), lambda folder: (folder / "plan.json").symlink_to("/dev/zero"),
         "apply plan.json base out"),
    Case("apply of a list", ("plan.json", "not a plan"), lambda folder: (folder / "plan.json").write_text("[]"),
         "apply plan.json base out"),
    Case("apply of an old plan", ("plan.json", "version 1", "plan anew"),
         lambda folder: (folder / "plan.json").write_text('{"version": 1}'), "apply plan.json base out"),
    Case("apply of half a plan", ("plan.json", "not a plan"),
         lambda folder: (folder / "plan.json").write_text('{"version": 3}'), "apply plan.json base out"),
    _command("report of no output", "report base", "report.json", "not written by compress"),
    Case("report of a pipe", ("report.json", "named pipe"), lambda folder: os.mkfifo(folder / "base/report.json"),
         "report base"),
    _command("ls of nothing known", "ls nosuch", "nosuch"),
    _command("push of nothing", "push nosuch a/b", "nosuch"),
    _command("apply-delta of no delta", "apply-delta base base out", "holds no delta"),
    Case("apply-delta of a pipe", ("delta.json", "named pipe"), lambda folder: os.mkfifo(folder / "base/delta.json"),
         "apply-delta base base out"),
]  # fmt: skip
