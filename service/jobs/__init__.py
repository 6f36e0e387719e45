"""Jobs: the worker, the process that computes steps, and the engine behind the queue."""
