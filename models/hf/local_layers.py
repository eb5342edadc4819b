"""The ways in which config.json marks local layers: one class for each, to read and to write."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.hf.fields import COUNT, FLAG, TEXTS, WHOLE, Fields, Json, Unsupported, checked

if TYPE_CHECKING:
    from models.config import ModelConfig

# "attention" is an old name of "full_attention".
LAYER_TYPES = {"full_attention": "G", "attention": "G", "sliding_attention": "L"}
DELTA_TYPES = {"full_attention": "G", "attention": "G", "linear_attention": "D"}


class NoLocalLayers:
    """All layers are global."""

    fixed = True  # layer_types, if present, must equal what follows from the other fields
    windowed = False  # whether sliding_window may be set
    example = "G"  # a pattern that such a family can have

    def count(self, f: Fields) -> int:
        """Return the number of layers."""
        return f.take("num_hidden_layers", COUNT)

    def read(self, f: Fields, name: str, layers: int) -> tuple[int, str]:
        """Return the window and the layer pattern (`ModelConfig.layer_pattern`).

        Args:
          f: the fields of config.json.
          name: name of the family.
          layers: number of layers.

        Raises:
          Unsupported: If the family has no such layers, or the window is missing or below 1.
        """
        types, window = f.take("layer_types", TEXTS), f.take("sliding_window", WHOLE)
        window = self.window(f, window)
        if types is None:
            letters = self.letters(f, layers, window)
        else:
            letters = [LAYER_TYPES.get(kind, "") for kind in types]
            if len(letters) != layers or "" in letters:
                raise Unsupported(f"layer_types={types!r} is not supported in {layers} layers")
            if self.fixed and letters != self.letters(f, layers, window):
                raise Unsupported(f"layer_types={types!r} is not supported in {name}")
        if window is not None and not self.windowed:
            raise Unsupported(f"sliding_window={window!r} is not supported in {name}")
        if "L" not in letters:
            return 0, "G"
        if window is None:
            raise Unsupported("it lacks sliding_window, but has layers with sliding_attention")
        if window < 1:
            raise Unsupported(
                f"sliding_window={window!r} leaves local layers nothing to see; set it to the "
                "number of tokens that they see, or to null if no layer is local"
            )
        return window, shortest("".join(letters))

    def window(self, f: Fields, window: int | None) -> int | None:
        """Return the window, given the value of the field `sliding_window`."""
        del f
        return window

    def letters(self, f: Fields, layers: int, window: int | None) -> list[str]:
        """Return G or L for each layer if config.json has no layer_types."""
        del f, window
        return ["G"] * layers

    def write(self, model: ModelConfig) -> Json:
        """Return the fields that describe the layers of a network."""
        del model
        return {}


class AllLayers(NoLocalLayers):
    """All layers are local if `sliding_window` is set."""

    windowed, example = True, "L"

    def letters(self, f: Fields, layers: int, window: int | None) -> list[str]:
        return ["G" if window is None else "L"] * layers

    def write(self, model: ModelConfig) -> Json:
        return {"sliding_window": model.sliding_window or None}


class LayerTypes(NoLocalLayers):
    """`layer_types`; without them, every fourth layer is global."""

    fixed, windowed, example = False, True, "LLLG"

    def letters(self, f: Fields, layers: int, window: int | None) -> list[str]:
        return _every(4, layers)

    def write(self, model: ModelConfig) -> Json:
        types = ["sliding_attention" if x == "L" else "full_attention" for x in model.letters]
        return {"sliding_window": model.sliding_window or None, "layer_types": types}


class LayerPattern(LayerTypes):
    """`layer_types` or `sliding_window_pattern`; without them, every sixth layer is global."""

    def letters(self, f: Fields, layers: int, window: int | None) -> list[str]:
        if "sliding_window_pattern" not in f:
            return _every(6, layers)
        every = checked("sliding_window_pattern", f.get("sliding_window_pattern"), COUNT)
        return _every(every, layers)


class SwitchedLayers(LayerTypes):
    """`layer_types`, or layers `max_window_layers` and later; only with `use_sliding_window`."""

    example = "G"

    def window(self, f: Fields, window: int | None) -> int | None:
        return window if f.take("use_sliding_window", FLAG) else None

    def letters(self, f: Fields, layers: int, window: int | None) -> list[str]:
        if window is None:
            return ["G"] * layers
        first_local = f.take("max_window_layers", WHOLE)
        return ["L" if i >= first_local else "G" for i in range(layers)]

    def write(self, model: ModelConfig) -> Json:
        fields = super().write(model)
        fields["use_sliding_window"] = fields["sliding_window"] is not None
        # Old readers do not read layer_types, but a number of global layers before the local ones.
        fields["max_window_layers"] = fields["layer_types"].count("full_attention")
        return fields


class DeltaLayers(NoLocalLayers):
    """`layer_types`; without them, every `full_attention_interval`-th layer has attention, and the
    others have DeltaNet."""

    example = "DDDG"

    def read(self, f: Fields, name: str, layers: int) -> tuple[int, str]:
        if (window := f.get("sliding_window")) is not None:
            raise Unsupported(f"sliding_window={window!r} is not supported in {name}")
        types = f.take("layer_types", TEXTS)
        if types is None:
            every = checked("full_attention_interval", f.get("full_attention_interval", 4), COUNT)
            return 0, shortest("".join(_every(every, layers, other="D")))
        letters = [DELTA_TYPES.get(kind, "") for kind in types]
        if len(letters) != layers or "" in letters:
            raise Unsupported(f"layer_types={types!r} is not supported in {layers} layers")
        return 0, shortest("".join(letters))

    def write(self, model: ModelConfig) -> Json:
        names = {letter: name for name, letter in reversed(DELTA_TYPES.items())}
        if others := sorted(set(model.letters) - names.keys()):
            raise Unsupported(
                f"qwen3_5_text has no layers {', '.join(others)} in model.layer_pattern"
            )
        return {"layer_types": [names[letter] for letter in model.letters]}


def _every(every: int, layers: int, other: str = "L") -> list[str]:
    """Return the letters of layers of which every `every`-th is global."""
    return ["G" if (i + 1) % every == 0 else other for i in range(layers)]


def shortest(letters: str) -> str:
    """Return the shortest pattern that, repeated, gives these layers."""
    size = len(letters)
    # A pattern repeats if the letters shifted by its length are the same.
    return next(letters[:n] for n in range(1, size + 1) if letters[n:] == letters[: size - n])
