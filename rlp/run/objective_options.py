"""The options of a config's objective, with defaults for those that are not set."""

import copy

from ml_collections import ConfigDict

from configs.default import Config
from rlp.objectives.options import Value, resolve
from rlp.objectives.registry import find
from rlp.run.tasks import NextToken


def options_of(config: Config) -> dict[str, Value]:
    """Return all options of a config's objective, by name.

    Raises:
      UserError: If an option does not exist or does not accept its value.
    """
    declared = {} if config.objective == NextToken.name else find(config.objective).options
    return resolve(config.objective, declared, config.objective_options)


def with_options(config: ConfigDict) -> ConfigDict:
    """Return a run's config with all options of its objective filled in, so that it records them.

    The config of an experiment is returned unchanged: each arm has the options of its objective.

    Raises:
      UserError: As in `options_of`.
    """
    if "arms" in config or not (options := options_of(Config.of(config))):
        return config
    filled = copy.deepcopy(config)
    with filled.unlocked():
        filled.objective_options = ConfigDict(options)
    return filled
