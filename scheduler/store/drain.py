"""Is the queue drained? On the path of every `backprop run`, so without the tables' models."""

# peewee is untyped.
# pyright: reportUnknownMemberType=false

from backprop.scheduler.store.connection import Database, proxy


def drained(database: Database) -> tuple[str, float] | None:
    """(why, since when in Unix seconds) nothing is to be started; None when the queue is open."""
    rows = database.rows("SELECT why, since_s FROM switches WHERE name = 'drained'")
    return (rows[0][0], rows[0][1]) if rows else None


def set_drained(database: Database, why: str | None, now_s: float) -> None:
    """From now on no worker starts anything (`why` says who wants that), or all do again (None)."""

    def verb() -> None:
        proxy.execute_sql("DELETE FROM switches WHERE name = 'drained'")
        if why is None:
            from backprop.scheduler.governor.opening import DRAINED

            # A worker gives each its new reason; until then, and without one, none must give the old.
            proxy.execute_sql(
                "UPDATE runs SET reason = 'queued', waiting = NULL WHERE state = 'queued' AND reason GLOB ?",
                (f"*{DRAINED}*",),
            )
        else:
            proxy.execute_sql(
                "INSERT INTO switches (name, why, since_s) VALUES ('drained', ?, ?)", (why, now_s)
            )

    database.write(verb)
