"""Networks as tables, what a checkpoint holds, the nets in the box."""
