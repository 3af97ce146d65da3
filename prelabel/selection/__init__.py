"""Which images people label first, when there is no model, and which next, when there is one."""
