"""How prepared faces lie on a disk or in an object store, and how their pixels are read back."""
