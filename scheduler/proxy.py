"""The one database of this process, before and after it is opened: peewee's models carry theirs, and a Backprop process
has one home. Beside the models, so that who writes plain SQL need not make eleven classes first."""

from typing import Final

from peewee import DatabaseProxy

proxy: Final = DatabaseProxy()
