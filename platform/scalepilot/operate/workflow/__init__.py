"""A workflow of tasks in Redis lists, as the OpenFaaS SARSA/DQN autoscaling toolkit has it.

An emitter puts tasks into `worker_queue`, workers take them and put results into `result_queue`, a collector puts these into
`output_queue`. A worker that is to go takes an order (SYN) between two tasks, and says so (ACK).
"""
