"""compress push against a small hub on loopback that speaks what huggingface_hub needs.

As a process of its own, as a user runs it, it publishes once; the other cases run in this process.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import spoken
from huggingface_hub import ModelCard, constants

from compress import cli

pytestmark = pytest.mark.slow

TOKEN = "hf_" + "secretsecret" * 3
ROOT = Path(__file__).parent.parent


class Hub(BaseHTTPRequestHandler):
    """Repositories that can be made, asked about, and committed to, with large files on the side (LFS)."""

    def do_GET(self) -> None:
        self.answer(404, {"error": "nothing is asked about before it is made"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        hub = self.server.state  # pyright: ignore[reportAttributeAccessIssue]
        hub["tokens"].add(self.headers.get("Authorization"))
        if hub["refuses"]:
            return self.answer(403, {"error": "no right to write"})
        if self.path == "/api/repos/create":
            hub["made"] = json.loads(body)
            return self.answer(200, {"url": f"{self.server.address}/org/name"})  # pyright: ignore
        if self.path.endswith("/preupload/main"):
            files = [
                {"path": file["path"], "uploadMode": "lfs" if file["path"].endswith("safetensors") else "regular"}
                for file in json.loads(body)["files"]
            ]
            return self.answer(200, {"files": [{**file, "shouldIgnore": False} for file in files]})
        if self.path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.server.address}/large/{one['oid']}"}}}  # pyright: ignore
                for one in json.loads(body)["objects"]
            ]
            return self.answer(200, {"transfer": "basic", "objects": objects})
        if "/commit/" in self.path:
            hub["commits"] += 1
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    hub["files"][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                elif line["key"] == "lfsFile":
                    hub["files"][line["value"]["path"]] = hub["large"][line["value"]["oid"]]
            return self.answer(200, {"commitUrl": f"{self.server.address}/org/name/commit/0", "commitOid": "0" * 40})  # pyright: ignore
        self.answer(200, {})

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.state["large"][hashlib.sha256(content).hexdigest()] = content  # pyright: ignore
        self.answer(200, {})

    def answer(self, status: int, data: dict) -> None:
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.address = f"http://127.0.0.1:{server.server_port}"  # pyright: ignore
    server.state = {"files": {}, "large": {}, "tokens": set(), "made": None, "commits": 0, "refuses": False}  # pyright: ignore
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def place(tmp_path_factory, harvested):
    """A dense model with a licence, a recipe, and the pruned model `out`, evaluated."""
    place = tmp_path_factory.mktemp("push")
    dense = spoken.save("llama", place / "dense")
    (dense / "README.md").write_text("---\nlicense: mit\nlanguage: en\n---\n# Dense\n")
    (place / "r.yaml").write_text("about: half\nsteps:\n- {prune: channels, by: magnitude, remove: 50%}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMPRESS_CACHE", str(harvested))
        assert cli.call([str(place / "r.yaml"), str(dense), str(place / "out"), "-q"]) == 0
    return place


def command(place, *arguments, address="http://127.0.0.1:9", token: str | None = TOKEN):
    """The command as a user runs it, with a home of its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    environment |= {"HF_ENDPOINT": address, "HF_HOME": str(place / "home"), "HF_HUB_DISABLE_XET": "1"}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | ({"HF_TOKEN": token} if token else {})
    done = subprocess.run(
        [sys.executable, "-m", "compress", *arguments], cwd=place, env=environment, capture_output=True, text=True
    )
    check_secrecy(place, done.stdout + done.stderr)
    return done


def check_secrecy(place, said):
    assert TOKEN not in said
    assert not any(TOKEN.encode() in file.read_bytes() for file in place.rglob("*") if file.is_file())


@pytest.fixture
def called(place, monkeypatch, capfd):
    """The command in this process, with what `command` has in its environment; gives exit code, stdout and stderr."""
    monkeypatch.chdir(place)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)

    def call(*arguments, address="http://127.0.0.1:9", token: str | None = TOKEN):
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setenv("HF_TOKEN", token) if token else monkeypatch.delenv("HF_TOKEN", raising=False)
        capfd.readouterr()
        code = cli.call([*arguments])
        out, error = capfd.readouterr()
        check_secrecy(place, out + error)
        return code, out, error

    return call


def test_what_arrives_is_the_folder(place, hub):
    (place / "out" / ".hidden").write_text("not to be sent")
    done = command(place, "push", "out", "org/name", "--private", address=hub.address)
    assert done.returncode == 0, done.stderr
    assert f"published: {hub.address}/org/name" in done.stderr
    sent = {path: content for path, content in hub.state["files"].items()}
    there = {file.name: file.read_bytes() for file in (place / "out").iterdir() if not file.name.startswith(".")}
    assert sent == there
    assert hub.state["commits"] == 1
    assert (hub.state["made"]["name"], hub.state["made"]["organization"]) == ("name", "org")
    assert hub.state["made"].get("private") or hub.state["made"].get("visibility") == "private"
    assert hub.state["tokens"] - {None} == {f"Bearer {TOKEN}"}


def test_pruning_and_publishing_in_one(place, hub, called):
    code, _, said = called(
        "r.yaml", "dense", "both", "--no-evaluate", "--force", "--push", "org/name", address=hub.address
    )
    assert code == 0, said
    assert hub.state["files"]["config.json"] == (place / "both" / "config.json").read_bytes()
    assert not hub.state["made"].get("private")


def test_dry_run_shows_files_and_card_and_sends_nothing(place, called):
    code, out, said = called("push", "out", "org/name", "--dry-run", "--json", token=None)
    assert code == 0, said
    shown = json.loads(out)
    assert shown["files"]["model.safetensors"] == (place / "out" / "model.safetensors").stat().st_size
    assert shown["card"] == (place / "out" / "README.md").read_text()
    _, out, _ = called("push", "out", "org/name", "--dry-run", token=None)
    assert re.search(r"model\.safetensors\s+\d", out) and "license: mit" in out


def test_the_card_says_what_was_measured(place):
    report = json.loads((place / "out" / "report.json").read_text())
    card = ModelCard.load(place / "out" / "README.md")
    data: Any = card.data
    assert data.license == "mit"
    (result,) = data.eval_results
    assert (result.task_type, result.metric_type, result.dataset_type) == ("text-generation", "perplexity", "manuals")
    assert result.metric_value == pytest.approx(report["after"]["perplexity"]["value"], abs=1e-4)
    assert str(report["after"]["perplexity"]["length"]) in (result.metric_name or "")
    assert "## Limits" in card.text and "Quality was measured on one small sample" in card.text


def test_refusals(place, hub, called):
    code, _, said = called("push", "out", "org/name", address=hub.address, token=None)
    assert (code, hub.state["made"]) == (2, None)
    assert "hf auth login" in said and "HF_TOKEN" in said
    code, _, said = called("r.yaml", "dense", "never", "--push", "org/name", address=hub.address, token=None)
    assert code == 2 and "hf auth login" in said
    assert not (place / "never").exists()  # said before pruning, not after
    hub.state["refuses"] = True
    code, _, said = called("push", "out", "org/name", address=hub.address)
    assert code == 2 and "refuses to write to org/name (403)" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["out", "name"], "ORG/name"),
        (["out", "org/na me"], "is no name of a repository"),
        (["nothing", "org/name"], "nothing"),
        (["bare", "org/name"], "README.md: not there"),
    ],
)
def test_mistakes(arguments, words, place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    if not (place / "bare").exists():
        spoken.save("llama", place / "bare")
    assert cli.call(["push", *arguments, "--dry-run"]) == 2
    assert words in capsys.readouterr().err
