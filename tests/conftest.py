"""One setting for all tests: CPU, eight simulated devices, no network, no silent broadcasting."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # also for the programs that tests start
os.environ["HF_HUB_OFFLINE"] = "1"  # no test asks the network
os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch's threads would wait for each other, spinning

import jax  # noqa: E402  reads the environment when imported

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
