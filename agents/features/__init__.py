"""What the agents that learn from logs share: the logs, the columns made of them, training and measuring."""
