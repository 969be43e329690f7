"""Print docs/recipes.md."""

from backprop.worker.recipes.page import page

if __name__ == "__main__":
    print(page(), end="")
