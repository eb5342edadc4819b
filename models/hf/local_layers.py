"""How config.json tells local layers from global ones: one class for each way, there and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.hf.fields import COUNT, FLAG, TEXTS, WHOLE, Fields, Json, Unsupported, checked

if TYPE_CHECKING:
    from models.config import ModelConfig

# "attention" is an old name.
LAYER_TYPES = {"full_attention": "G", "attention": "G", "sliding_attention": "L"}


class NoLocalLayers:
    """It cannot: all layers are global."""

    fixed = True  # layer_types can only say what follows without them
    windowed = False  # whether there may be a sliding_window
    example = "G"  # a pattern that such a family can have

    def read(self, f: Fields, name: str, layers: int) -> tuple[int, str]:
        """Window and pattern of `layers` layers of the family `name`."""
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
                f"sliding_window={window!r} leaves local layers nothing to see; give the tokens "
                "that they see, or null where none is local"
            )
        return window, _shortest("".join(letters))

    def window(self, f: Fields, window: int | None) -> int | None:
        """The window, of which `sliding_window` is the field's value."""
        del f
        return window

    def letters(self, f: Fields, layers: int, window: int | None) -> list[str]:
        """G or L for each layer, where there are no layer_types."""
        del f, window
        return ["G"] * layers

    def write(self, model: ModelConfig) -> Json:
        """The fields for the network's layers."""
        del model
        return {}


class AllLayers(NoLocalLayers):
    """A `sliding_window` means that all layers are local."""

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
    """`layer_types`, or the layers from `max_window_layers` on; only with `use_sliding_window`."""

    example = "G"

    def window(self, f: Fields, window: int | None) -> int | None:
        return window if f.take("use_sliding_window", FLAG) else None

    def letters(self, f: Fields, layers: int, window: int | None) -> list[str]:
        if window is None:
            return ["G"] * layers
        since = f.take("max_window_layers", WHOLE)
        return ["L" if i >= since else "G" for i in range(layers)]

    def write(self, model: ModelConfig) -> Json:
        found = super().write(model)
        found["use_sliding_window"] = found["sliding_window"] is not None
        # Old readers know no layer_types, but a number of global layers before the local ones.
        found["max_window_layers"] = found["layer_types"].count("full_attention")
        return found


def _every(every: int, layers: int) -> list[str]:
    return ["G" if (i + 1) % every == 0 else "L" for i in range(layers)]


def _shortest(letters: str) -> str:
    """The shortest pattern that, repeated, gives these layers."""
    size = len(letters)
    # A part repeats if the letters are the same when they are shifted by its length.
    return next(letters[:n] for n in range(1, size + 1) if letters[n:] == letters[: size - n])
