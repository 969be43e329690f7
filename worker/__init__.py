"""Claims, starts and supervises segments; reads their events; asks the governor before each start."""
