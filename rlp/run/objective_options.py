"""Options of a config's objective: all that it declares, with defaults where none is given."""

import copy

from ml_collections import ConfigDict

from configs.default import Config
from rlp.objectives.options import Value, resolve
from rlp.objectives.registry import find
from rlp.run.tasks import NextToken


def options_of(config: Config) -> dict[str, Value]:
    """All options of a config's objective, by name.

    Raises:
      UserError: there is no such option, or it cannot take its value.
    """
    declared = {} if config.objective == NextToken.name else find(config.objective).options
    return resolve(config.objective, declared, config.objective_options)


def with_options(config: ConfigDict) -> ConfigDict:
    """A run's config with all options of its objective, so that it records them; an experiment's
    config as it is, since each of its arms has the options of its own objective.

    Raises:
      UserError: as of `options_of`.
    """
    if "arms" in config or not (options := options_of(Config.of(config))):
        return config
    filled = copy.deepcopy(config)
    with filled.unlocked():
        filled.objective_options = ConfigDict(options)
    return filled
