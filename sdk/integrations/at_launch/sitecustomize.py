"""Waits, in the interpreters of a run, for the import of a framework that we have an integration for.

Backprop puts this folder in front of PYTHONPATH where a run gets its integration at launch. So every Python below the
run executes this file: data workers, pip, other versions. It is written in what any Python can read, does nothing
outside a run, lets the `sitecustomize` that it hides follow, and raises nothing of its own. The integration itself is
loaded with the framework, from above this folder and under a name of its own. No other import can meet it.
"""

import os
import sys

HERE = os.path.dirname(__file__)
NAMES = (
    "transformers.trainer",
    "lightning.pytorch.trainer.trainer",
    "pytorch_lightning.trainer.trainer",
    "keras.src.models.model",
    "ultralytics.engine.model",
)


class Finder(object):
    """Finds nothing itself: lets the others find the frameworks, and acts when one has been executed."""

    def find_spec(self, name, path=None, target=None):
        """Return what the others find. Their own failure is the import's."""
        if name not in NAMES:
            return None
        for finder in list(sys.meta_path):
            find = getattr(finder, "find_spec", None) if finder is not self else None
            spec = find(name, path, target) if find is not None else None
            if spec is not None:
                follow(spec)
                return spec
        return None


def follow(spec):
    """Attach the integration once the module has been executed, whatever that takes."""
    loader = spec.loader
    try:
        execute = loader.exec_module

        def exec_module(module):
            execute(module)
            try:
                integration().attach(spec.name, module)
            except Exception as error:  # training must not die of it
                sys.stderr.write("backprop: no integration for %s: %r\n" % (spec.name, error))

        loader.exec_module = exec_module  # of this loader alone: the class is everybody's
    except Exception:
        return


def integration():
    """Load our package, which this folder is in."""
    import importlib
    from importlib.util import module_from_spec, spec_from_file_location

    name = "_backprop_at_launch"
    if name not in sys.modules:
        folder = os.path.dirname(os.path.dirname(HERE))
        spec = spec_from_file_location(
            name, os.path.join(folder, "__init__.py"), submodule_search_locations=[folder]
        )
        package = module_from_spec(spec)
        sys.modules[name] = package
        try:
            spec.loader.exec_module(package)
        except BaseException:
            del sys.modules[name]
            raise
    return importlib.import_module(name + ".integrations._at_launch")


def is_wanted():
    """Return whether this is an interpreter of the run that asked for it."""
    run, segment = os.environ.get("BACKPROP_RUN_ID"), os.environ.get("BACKPROP_SEGMENT")
    told = os.environ.get("BACKPROP_INTEGRATIONS", "").split(":")
    is_known = sys.version_info >= (3, 10) and sys.implementation.name == "cpython"
    is_off = bool(os.environ.get("BACKPROP_NO_INTEGRATIONS"))
    return is_known and not is_off and bool(run) and told[:2] == [run, segment]


def give_way():
    """Import the `sitecustomize` that this one hides, as Python would have. What it raises is its own."""
    sys.path[:] = [entry for entry in sys.path if entry != HERE]
    ours = sys.modules.pop("sitecustomize", None)
    try:
        import sitecustomize  # noqa: F401
    except ImportError as error:
        if getattr(error, "name", "sitecustomize") != "sitecustomize":
            raise
        if ours is not None:
            sys.modules.setdefault("sitecustomize", ours)


try:
    if is_wanted():
        sys.meta_path.insert(0, Finder())
except Exception:
    pass
give_way()
