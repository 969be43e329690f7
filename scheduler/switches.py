"""Is the queue drained? On the path of every `backprop run`, so without the tables' models."""

from backprop.scheduler.database import Database


def drained(database: Database) -> tuple[str, float] | None:
    """(why, since when in Unix seconds) nothing is to be started; None when the queue is open."""
    rows = database.rows("SELECT why, since_s FROM switches WHERE name = 'drained'")
    return (rows[0][0], rows[0][1]) if rows else None
