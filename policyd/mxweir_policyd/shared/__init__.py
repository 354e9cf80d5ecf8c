"""The policy daemon where limits are counted in Redis: questions wait in rows, and a row is one call."""
