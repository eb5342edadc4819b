"""AIME 2025: the 30 problems of two contests, with integers from 0 to 999 as answers."""

from rlp.evaluation.benchmarks.competitions import aime

BENCHMARK = aime(
    2025, "github.com/NVIDIA/NeMo-Skills, nemo_skills/dataset/aime25/test.txt, named test.jsonl"
)
