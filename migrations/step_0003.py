"""Schema 3: the number of the last request of a user that the database knows, see `scheduler/home/request_log.py`."""

STATEMENTS = ("CREATE TABLE known_requests (number INTEGER NOT NULL PRIMARY KEY)",)
