"""Lists the recipes in the order in which they are tried: a script around a framework uses PyTorch too."""

from typing import Final

from backprop.scheduler.recipes.catalog import (
    COMPOSER,
    DETECTRON2,
    FAIRSEQ,
    HUGGINGFACE,
    KERAS,
    KERAS_FIT,
    LIGHTNING,
    MMENGINE,
    NANOGPT,
    TIMM,
    ULTRALYTICS,
)
from backprop.scheduler.recipes.catalog_plain import ACCELERATE, OWN_OPTION, PYTORCH
from backprop.scheduler.recipes.recipe import Recipe

RECIPES: Final[tuple[Recipe, ...]] = (
    ULTRALYTICS,
    FAIRSEQ,
    NANOGPT,
    MMENGINE,
    DETECTRON2,
    COMPOSER,
    LIGHTNING,
    KERAS,
    KERAS_FIT,
    HUGGINGFACE,
    ACCELERATE,
    TIMM,
    PYTORCH,
    OWN_OPTION,
)
BY_NAME: Final = {recipe.name: recipe for recipe in RECIPES}
