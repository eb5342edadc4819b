"""AIME 2024: the 30 problems of two contests, with integers from 0 to 999 as answers."""

from rlp.evaluation.benchmarks.competitions import aime

BENCHMARK = aime(2024, "github.com/QwenLM/Qwen2.5-Math, evaluation/data/aime24/test.jsonl")
