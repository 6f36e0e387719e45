"""Jobs: the worker, the process that computes its steps, and the engine behind the queue."""
