"""Which recipes are there? In the order in which they are tried: a script around a framework uses PyTorch too."""

from typing import Final

from backprop.worker.recipes.frameworks import (
    COMPOSER,
    DETECTRON2,
    FAIRSEQ,
    HUGGINGFACE,
    KERAS,
    LIGHTNING,
    MMENGINE,
    NANOGPT,
    TIMM,
    ULTRALYTICS,
)
from backprop.worker.recipes.recipe import Recipe
from backprop.worker.recipes.scripts import ACCELERATE, PYTORCH

RECIPES: Final[tuple[Recipe, ...]] = (
    ULTRALYTICS,
    FAIRSEQ,
    NANOGPT,
    MMENGINE,
    DETECTRON2,
    COMPOSER,
    LIGHTNING,
    KERAS,
    HUGGINGFACE,
    ACCELERATE,
    TIMM,
    PYTORCH,
)
BY_NAME: Final = {recipe.name: recipe for recipe in RECIPES}
