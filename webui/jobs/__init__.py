"""Long work: the queue, the tasks it runs (plan, edit), the models they run on, and ZeroGPU's forks."""
