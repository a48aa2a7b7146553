"""The sub-commands of ``dispatcher``, one module each: what it says is in its help, how it is done is elsewhere."""
