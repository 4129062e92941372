"""How long tests wait for what takes seconds: a machine that others use too may stand still for minutes."""

PATIENCE = 600.0  # seconds; only a failing test waits so long
